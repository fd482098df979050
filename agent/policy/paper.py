"""The switch that *Neurosymbolic LoRA* (arXiv 2601.12711) describes, as far as it is public; see docs/decision.md.

LoRA first, until the change of its loss and its gradient norm say that it is saturated. Then prompt edits, from the
rows that the reward classifier calls style. Back to LoRA when an edit brings little. The thresholds are guesses: the
public descriptions name the measures, and no values.
"""

from typing import NamedTuple

from agent.config.task import TaskConfig
from agent.policy.base import WORTH_A_ROUND, numbers, remedied, rows_of_prompt, stop_reason, training, why_remedied
from agent.policy.reasons import closed_levers, nothing_kept
from agent.protocols import Briefing
from agent.records.actions import Decision, EditPrompt, Stop, TrainLora
from agent.records.rounds import Round, tried
from agent.records.signal import Signal

# A training is saturated once its last epoch lowered the loss by less than this (nats per token), and the gradient norm
# has lost this share since its first epoch. In 120 recorded trainings of a 135M model, 62 ended with their rows
# learned, 33 at rest by both measures, and 25 still moving: loss down by up to 3.0, or the norm at a quarter or more.
FLAT = 0.1
SETTLED = 0.75


class Turn(NamedTuple):
    """The lever that the switch points at, and why."""

    to_weights: bool
    reason: str


class PaperSwitch:
    """LoRA until it is saturated; then edits on style rows while they bring something; then LoRA again."""

    name = "paper"

    def __init__(self, config: TaskConfig) -> None:
        self._config = config

    def decide(self, briefing: Briefing) -> Decision:
        """The lever whose turn it is; the other one where that one is closed; stop where both are."""
        signal, refused = briefing.signal, briefing.refused
        lora_open = not signal.lora.saturated and "train_lora" not in refused
        edit_open = not signal.edit.saturated and "edit_prompt" not in refused
        turn = self._turn(briefing)
        train = turn.to_weights if lora_open and edit_open else lora_open
        move: TrainLora | EditPrompt | Stop = EditPrompt(failures="style")
        reason = turn.reason
        if train:
            move = remedied(training(self._config, rows_of_prompt(signal, self._config)), briefing.history)
            reason += why_remedied(move, briefing.history)
        if ended := stop_reason(briefing, self._config):
            move, reason = Stop(), ended
        elif not (lora_open or edit_open):
            move, reason = Stop(), f"No lever is left to try. {closed_levers(briefing)}"
        elif train != turn.to_weights:
            reason = f"{reason} {closed_levers(briefing)} So {'LoRA' if train else 'an edit'} is tried."
        shown = numbers(signal, briefing.diagnosis) | _numbers(signal)
        return Decision(move=move, reason=reason, numbers=shown, by="paper")

    def _turn(self, briefing: Briefing) -> Turn:
        """Whose turn it is, if both levers are open."""
        signal, style = briefing.signal, briefing.diagnosis.share("style")
        last = next((row for row in reversed(tried(briefing.history)) if _pulls(row)), None)
        if last is None:
            return Turn(True, "LoRA comes first.")
        lacking = f"{style:.0%} of the rows lack style, as they are diagnosed"
        if isinstance(last.decision.move, TrainLora):
            saturated, found = self._saturation(signal)
            if not saturated:
                return Turn(True, f"LoRA is not saturated: {found}.")
            if style < WORTH_A_ROUND:
                return Turn(True, f"LoRA is saturated ({found}), but only {lacking}.")
            return Turn(False, f"LoRA is saturated: {found}. {lacking}.")
        gained = last.verdict.merit_gain if last.verdict.kept else 0.0
        if not last.verdict.kept:
            return Turn(True, "The last edit was taken back, so LoRA goes on.")
        if gained < signal.floor or gained <= 0:
            return Turn(True, f"The last edit brought little ({gained:+.2f} merit), so LoRA goes on.")
        if style < WORTH_A_ROUND:
            return Turn(True, f"The last edit brought {gained:+.2f} merit, and only {lacking}.")
        return Turn(False, f"The last edit brought {gained:+.2f} merit. {lacking}.")

    def _saturation(self, signal: Signal) -> tuple[bool, str]:
        """Whether the last training has gone as far as it can, and by which numbers."""
        if signal.lora.saturated:
            return True, nothing_kept(signal.lora)
        if signal.loss is None:
            return False, "its last training is not measured"
        if signal.loss <= self._config.lora.enough:
            return True, f"its rows are learned, with a loss of {signal.loss:.4f} nats a token"
        change = loss_change(signal)
        if change is None or signal.grad_drop is None:
            return False, f"one epoch, with a loss of {signal.loss:.2f} nats a token, does not show it"
        norm = f"the gradient norm is at {1 - signal.grad_drop:.0%} of the first epoch's"
        found = f"the last epoch changed the loss by {-change:+.2f} nats a token, and {norm}"
        return change < FLAT and signal.grad_drop >= SETTLED, found


def loss_change(signal: Signal) -> float | None:
    """By how much the last epoch lowered the loss, in nats per token; None where that is not known."""
    loss, drop = signal.loss, signal.loss_drop
    if loss is None or drop is None or drop >= 1:
        return None
    return loss * drop / (1 - drop)


def _pulls(row: Round) -> bool:
    return isinstance(row.decision.move, TrainLora | EditPrompt)


def _numbers(signal: Signal) -> dict[str, float]:
    """What only this switch looks at, to four places."""
    known = {"loss change": loss_change(signal), "gradient drop": signal.grad_drop, "noise floor": signal.floor or None}
    return {name: round(value, 4) for name, value in known.items() if value is not None}
