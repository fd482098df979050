"""Where a run stands, in the words of every face: terminal, page, `nesylora ctl` and MCP."""

from typing import Protocol

from agent.records.limits import Limits
from graphs.control.steering import Condition, RunStatus, Step
from ui import wording

CONDITIONS: dict[Condition, str] = {
    "working": "working", "waiting": "waits for you", "paused": "paused", "finished": "finished", "stopped": "stopped",
}  # fmt: skip

PAUSING = "it pauses after this step"


class Standing(Protocol):
    """What a status, or a view of it, says of a run."""

    @property
    def run(self) -> str: ...
    @property
    def condition(self) -> Condition: ...
    @property
    def rounds(self) -> int: ...
    @property
    def seed_reward(self) -> float | None: ...
    @property
    def reward(self) -> float | None: ...
    @property
    def limits(self) -> Limits: ...


def standing(now: Standing) -> str:
    """A line, such as "valley-1: reward 0.00 → 0.94 (target 0.90); 1 round of 4 done; waits for you"."""
    reward = wording.number(now.reward)
    if now.seed_reward is not None and now.seed_reward != now.reward:
        reward = f"{wording.number(now.seed_reward)} → {reward}"
    target = f" (target {wording.number(now.limits.target)})" if now.limits.target is not None else ""
    done = f"{wording.plural(now.rounds, 'round')} of {now.limits.rounds} done"
    return f"{now.run}: reward {reward}{target}; {done}; {CONDITIONS[now.condition]}"


def doing(now: RunStatus) -> str:
    """The step under way, or what is asked; empty where there is neither."""
    if now.question:
        return f"about round {now.question.number}: {now.question.decision.move}"
    return "; ".join(filter(None, [progress(now.step) if now.step else "", PAUSING if now.pausing else ""]))


def progress(step: Step) -> str:
    """How far a step is, such as "training LoRA 3/40, loss 2.1, about 20 s left"."""
    return ", ".join([f"{step.what or 'at work'}{f' {step.done}/{step.total}' if step.total else ''}", *figures(step)])


def figures(step: Step) -> list[str]:
    """What is known of a step beside how far it is: its note, and the time that it still takes."""
    left = f"about {wording.duration(step.seconds_left)} left" if step.seconds_left is not None else ""
    return [wording.printable(figure) for figure in (step.note, left) if figure]
