"""The rules: which lever next, from signal and diagnosis."""

from collections.abc import Sequence

from agent.config.task import TaskConfig
from agent.policy.base import TEACHABLE, WORTH_A_ROUND, fitting_rows, numbers, stop_reason, training
from agent.protocols import Briefing
from agent.records.actions import Decision, EditPrompt, Stop, TrainLora
from agent.records.rounds import Round
from agent.records.signal import Diagnosis, Signal


class Rules:
    """The paper's switch: rewrite where words can get there; where they cannot, train on rows in the wanted form.

    Words come first where form is all that is missing: they cost a tenth of a LoRA round. Where content is missing,
    weights are needed anyway; train rows put into the wanted form teach form and content at once, and a prompt that
    grew before would only make every step of the training dearer. Where rows cannot be put into that form, words still
    come first: weights trained on answers in another form no longer listen to the prompt.
    """

    name = "rules"

    def __init__(self, config: TaskConfig) -> None:
        self._config = config

    def decide(self, briefing: Briefing) -> Decision:
        signal, diagnosis, refused = briefing.signal, briefing.diagnosis, briefing.refused
        style, content = diagnosis.share("style"), diagnosis.share("content")
        shown = numbers(signal, diagnosis)
        if ended := stop_reason(briefing, self._config):
            return Decision(move=Stop(), reason=ended, numbers=shown)
        edit_open = not signal.edit.saturated and "edit_prompt" not in refused
        lora_open = not signal.lora.saturated and "train_lora" not in refused
        words_suffice = 1 - content >= self._config.target - WORTH_A_ROUND
        along = lora_open and signal.teachable >= TEACHABLE and not words_suffice
        if edit_open and style >= WORTH_A_ROUND and not along:
            reason = (
                f"{style:.0%} of the rows lack style, and words are the cheap way to mend that{_edits_so_far(signal)}."
            )
            return Decision(move=EditPrompt(), reason=reason, numbers=shown)
        if lora_open and content > 0:
            reason = (
                f"{content:.0%} of the rows lack content{_gap(diagnosis)}, which only weights can give"
                f"{_along(1 - signal.style)}{_loss(signal)}."
            )
            return Decision(move=self.training(signal, briefing.history), reason=reason, numbers=shown)
        if edit_open:
            why = "LoRA is saturated" if signal.lora.saturated else "LoRA has nothing to mend or was turned down"
            return Decision(move=EditPrompt(), reason=f"{why}, and edits have not been exhausted.", numbers=shown)
        if lora_open:
            edits = "Edits bring little now" if signal.edit.saturated else "Edits were turned down"
            reason = f"{edits}, and LoRA has not been exhausted{_loss(signal)}."
            return Decision(move=self.training(signal, briefing.history), reason=reason, numbers=shown)
        return Decision(move=Stop(), reason=_plateau(refused), numbers=shown)

    def training(self, signal: Signal, history: Sequence[Round]) -> TrainLora:
        """LoRA as the task sets it: on rows that fit the prompt; anew where the rows changed or a try failed.

        A rise that was within chance is no failure: the same once more, with other draws.
        """
        rows = fitting_rows(signal, self._config)
        earlier = [(row.verdict, row.decision.move) for row in history if isinstance(row.decision.move, TrainLora)]
        if not earlier:
            return training(self._config, rows)
        verdict, last = earlier[-1]
        failed = not verdict.kept and verdict.gain <= 0
        return training(self._config, rows, fresh=failed or last.rows != rows, slower=failed)


def _edits_so_far(signal: Signal) -> str:
    return f" (the last edit gained {signal.edit.gain:+.2f})" if signal.edit.rounds else ""


def _gap(diagnosis: Diagnosis) -> str:
    gap = diagnosis.weight_gap
    return "" if gap is None else f" ({gap:.1f} nats per answer token stay whatever the words)"


def _along(failing: float) -> str:
    if failing < WORTH_A_ROUND:
        return ""
    return f"; rows in the wanted form teach along the style that {failing:.0%} fail in"


def _loss(signal: Signal) -> str:
    return "" if signal.loss_drop is None else f"; the last epoch lowered the loss by {signal.loss_drop:.0%}"


def _plateau(refused: Sequence[str]) -> str:
    if refused:
        return "What was left to try has been turned down."
    return "Plateau: the last tries of both levers brought nothing beyond noise."
