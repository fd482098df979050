"""What a conversation answers to questions about a run, from its ledger: each line quotes what stands there."""

from collections.abc import Iterator, Sequence

from agent.records.examples import Prompt
from agent.records.looks import Finding, RowsScored
from agent.records.rounds import Baseline, Outcome, Round
from graphs.control.steering import RunStatus
from ui import wording
from ui.decision_wording import decider, finding, reason
from ui.report.diff import lines as prompt_lines
from ui.report.diff import unified
from ui.status_wording import doing, standing
from ui.talk.lines import Line, line
from ui.talk.plans import considered, numbers, what

OVER = "The run has finished. /try, /why and /diff still answer; /set rounds=+2 goes on with it; /quit leaves."


def why(row: Round) -> Iterator[Line]:
    """A round: what was done, who decided it and why, and how it was judged."""
    yield line(f"Round {row.number}, {row.decision.move.action}, decided by {decider(row.decision)}.", "strong")
    yield line(f"  {what(row.decision.move)}: {row.trial.note}")
    yield line(f"  {reason(row.decision)}")
    yield from considered(row.decision)
    yield line("  seen before it:", "dim")
    yield from numbers(row.decision)
    verdict = row.verdict
    change = f"{wording.number(verdict.before)} → {wording.number(verdict.after)}"
    yield line(f"  reward {change}, {wording.kept(row)}: {verdict.reason}")
    if verdict.drift is not None:
        before, after = wording.signed(verdict.drift_before or 0.0), wording.signed(verdict.drift)
        yield line(f"  forgotten: drift {before} → {after} nats a token on general text", "dim")
    yield line(f"  cost: {wording.cost(row.trial.spend)}", "dim")


def better_before(rounds: Sequence[Round], first: Baseline | None) -> str:
    """That an earlier pair had a higher reward than the present one, and how to go back; else nothing."""
    if first is None:
        return ""
    rewards = [first.reward, *(row.reward for row in rounds)]
    best = rewards.index(max(rewards))
    if rewards[best] == rewards[-1]:
        return ""
    after = f"round {best}" if best else "the baseline"
    had = f"{wording.number(rewards[-1])}; after {after} it was {wording.number(rewards[best])}"
    return f" The present pair has a validation reward of {had} (/rollback {best} goes back there)."


def diff(seed: Prompt, best: Prompt) -> Iterator[Line]:
    """What the best prompt says that the seed prompt did not."""
    for text in unified(seed, best).splitlines() or ["The best prompt is the seed prompt."]:
        yield line(text, "added" if text.startswith("+") else "removed" if text.startswith("-") else "dim")


def prompt(shown: Prompt) -> Iterator[Line]:
    """The whole prompt."""
    return (line(f"  {text}") for text in prompt_lines(shown))


def status(now: RunStatus) -> Iterator[Line]:
    """Where the run stands, what it has cost, and what it waits for."""
    on = "; /go goes on" if now.condition in ("paused", "stopped") else ""
    yield line(f"{standing(now)}{on}.")
    limits = [f"{wording.cost(now.spend)} used"]
    limits += [f"{wording.duration(60 * now.limits.minutes)} at most"] if now.limits.minutes is not None else []
    limits += [f"{wording.money(now.limits.usd)} at most"] if now.limits.usd is not None else []
    yield line(f"  {'; '.join(limits)}.", "dim")
    if now.step and now.condition == "working":
        yield line(f"  {doing(now)}")
    if now.trouble:
        yield line(f"  {now.trouble}", "fault")


def found(look: Finding) -> Iterator[Line]:
    """What a look found, with the rows that it may show."""
    yield line(finding(look))
    if isinstance(look, RowsScored):
        for row in look.failures:
            wanted = f"  (your answer: “{wording.cut(row.wanted, 80)}”)" if row.wanted else ""
            faults = f"  ({' '.join(row.faults)})" if row.faults else ""
            where = f"{row.row}: " if row.row else ""
            yield line(f"  {where}“{wording.cut(row.question, 80)}” → “{wording.cut(row.output, 80)}”{wanted}{faults}")
        if any(row.wanted for row in look.failures):
            yield line("  Look whether your answers are right there: demonstrations and trainings follow them.", "dim")


def tried(pairs: Sequence[tuple[str, str]]) -> Iterator[Line]:
    """The pairs' names and answers, side by side."""
    width = max(len(name) for name, _ in pairs)
    for name, answer in pairs:
        yield line(f"  {name:<{width}}  {answer}")


def outcome(end: Outcome) -> Iterator[Line]:
    """How the run ended, on the test rows."""
    tested, seed = wording.interval(end.best_test), wording.number(end.baseline_test.reward)
    yield line(f"Stopped: {end.stopped}", "strong")
    yield line(f"  test rows: seed prompt {seed}, best pair {tested}")
    yield line(OVER)
