"""The unified monitoring signal over both levers (paper, the section on the monitoring signal)."""

from collections.abc import Sequence
from typing import Literal

from agent.policy.base import FALLING
from agent.records.evaluation import Evaluation
from agent.records.rounds import Round, tried
from agent.records.signal import LeverSignal, Signal

Lever = Literal["train_lora", "edit_prompt"]

# Discarded tries of one lever, since anything was last kept, after which it counts as saturated.
FRUITLESS = 2
# The same of trainings that worked and forgot too much: each is made to forget less than the one before.
FORGETFUL = 3


def observe(
    evaluation: Evaluation,
    noise: float,
    history: Sequence[Round],
    refined: bool,
    shown: float = 0.0,
    remade: float = 0.0,
    few_shot: bool = False,
    luck: float = 0.0,
) -> Signal:
    """The signal before a round.

    Args:
        evaluation: the best pair on validation.
        noise: standard error of its mean reward, in reward units.
        history: all rounds so far.
        refined: whether the best prompt is another than the seed.
        shown, remade: share of train answers that have the wanted form as given; that pass once they are put into it.
        few_shot: whether the best prompt shows few-shot examples.
        luck: share of rows that one answer to all of them gets right.
    """
    history = tried(history)
    last = next((row for row in reversed(history) if row.decision.move.action == "train_lora"), None)
    trial = last.trial if last else None
    return Signal(
        reward=evaluation.reward,
        content=evaluation.content,
        style=evaluation.style,
        refined=refined,
        shown=shown,
        remade=remade,
        few_shot=few_shot,
        luck=luck,
        noise=noise,
        loss=trial.loss if trial else None,
        loss_drop=trial.loss_drop if trial else None,
        grad_norm=trial.grad_norm if trial else None,
        grad_drop=trial.grad_drop if trial else None,
        lora=lever_signal("train_lora", history),
        edit=lever_signal("edit_prompt", history),
    )


def lever_signal(lever: Lever, history: Sequence[Round]) -> LeverSignal:
    """What this lever's rounds brought.

    It is saturated after `FRUITLESS` discarded tries in a row with nothing kept in between: a kept action of
    the other lever gives it a new chance. A discarded LoRA round whose loss is flat saturates at once. One that was
    only taken back for what it forgets is no fruitless try; after `FORGETFUL` of those the lever is saturated, too.
    A round that a user cancelled says nothing.
    """
    history = tried(history)
    own = [row for row in history if row.decision.move.action == lever]
    last_kept = max((place for place, row in enumerate(history) if row.verdict.kept), default=-1)
    discarded = [row.verdict for row in history[last_kept + 1 :] if row.decision.move.action == lever]
    forgot = sum(verdict.overruled for verdict in discarded)
    fruitless = len(discarded) - forgot
    loss_drop = own[-1].trial.loss_drop if own else None
    flat = lever == "train_lora" and fruitless > 0 and loss_drop is not None and loss_drop < FALLING
    return LeverSignal(
        rounds=len(own),
        kept=sum(row.verdict.kept for row in own),
        gain=own[-1].verdict.gain if own else 0.0,
        fruitless=fruitless,
        forgot=forgot,
        saturated=fruitless >= FRUITLESS or flat or forgot >= FORGETFUL,
    )
