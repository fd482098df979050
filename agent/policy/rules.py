"""The rules: which lever next, from signal and diagnosis."""

from collections.abc import Sequence

from agent.config.task import TaskConfig
from agent.policy import reasons
from agent.policy.base import (
    TEACHABLE,
    WORTH_A_ROUND,
    fitting_rows,
    is_unfinished,
    numbers,
    remedied,
    stop_reason,
    training,
    trains_bare,
    why_so,
    words_are_likely,
)
from agent.protocols import Briefing
from agent.records.actions import MOST_EPOCHS, Action, Decision, EditPrompt, Stop, TrainLora
from agent.records.rounds import Round, tried
from agent.records.signal import Signal


class Rules:
    """Rewrite where words can get there; where they are not expected to, train on rows in the wanted form.

    Words come first where they are likely to mend a failing row: they are cheap, they forget nothing, and weights
    trained under the few-shot examples that they bring forget little. Where those bring hardly an answer beyond luck,
    weights are trained without them. Where most failing rows lack content, weights are needed anyway; train rows put
    into the wanted form teach form and content at once, and a prompt that grew before would only make every step of the
    training dearer. Where rows cannot be put into that form, words still come first: weights trained on answers in
    another form no longer listen to the prompt.
    """

    name = "rules"

    def __init__(self, config: TaskConfig) -> None:
        self._config = config

    def decide(self, briefing: Briefing) -> Decision:
        """The action, with the numbers it rests on; stop where the run is over, or both levers are closed."""
        signal, diagnosis, refused = briefing.signal, briefing.diagnosis, briefing.refused
        style, content = diagnosis.share("style"), diagnosis.share("content")
        edit_open = not signal.edit.saturated and "edit_prompt" not in refused
        lora_open = not signal.lora.saturated and "train_lora" not in refused
        words_suffice = 1 - content >= self._config.target - WORTH_A_ROUND
        words_first = words_suffice or words_are_likely(briefing)
        taught_along = lora_open and signal.teachable >= TEACHABLE and not words_first
        action: Action = Stop()
        if ended := stop_reason(briefing, self._config):
            reason = ended
        elif edit_open and style >= WORTH_A_ROUND and not taught_along:
            action, reason = EditPrompt(), reasons.for_words(briefing, self._config)
        elif lora_open and content > 0:
            action = self.training(signal, briefing.history)
            reason = reasons.for_weights(briefing, self._config, action)
        elif edit_open:
            action = EditPrompt()
            why = reasons.closed_lever("LoRA", signal.lora, "train_lora" in refused)
            reason = f"{why or 'No row lacks content, as they are diagnosed.'} An edit is left to try."
        elif lora_open:
            action = self.training(signal, briefing.history)
            why = reasons.closed_lever("Edits", signal.edit, "edit_prompt" in refused)
            reason = f"{why} LoRA is left to try. {reasons.loss(signal)}".strip()
        else:
            reason = f"No lever is left to try. {reasons.closed_levers(briefing)}"
        if isinstance(action, TrainLora):
            reason += why_so(action, signal, briefing.history)
        return Decision(move=action, reason=reason, numbers=numbers(signal, diagnosis))

    def training(self, signal: Signal, history: Sequence[Round]) -> TrainLora:
        """LoRA as the task sets it: on rows that fit the prompt; anew where the rows changed, a try failed or forgot.

        A rise that was within chance is no failure: the same once more, with other draws. One that was taken back while
        its loss was still falling was too short, and is given twice the epochs.
        """
        rows, bare = fitting_rows(signal, self._config), trains_bare(signal, self._config, history)
        earlier = [(row, move) for row in tried(history) if isinstance(move := row.decision.move, TrainLora)]
        if not earlier:
            return training(self._config, rows, bare=bare)
        row, last = earlier[-1]
        failed, alike, epochs = not row.verdict.kept and row.verdict.gain <= 0, last.bare == bare, 0
        if alike and row.verdict.overruled:
            epochs = last.epochs
        elif alike and is_unfinished(row):
            epochs = min(MOST_EPOCHS, 2 * last.epochs)
        # Where every train answer has the wanted form, remade rows are those that were given.
        changed = last.rows != rows and not (last.bare and signal.shown == 1)
        slower = failed and alike and not epochs
        move = training(self._config, rows, fresh=failed or changed, slower=slower, epochs=epochs, bare=bare)
        return remedied(move, history)
