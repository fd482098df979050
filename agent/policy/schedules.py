"""Policies that do not look: fixed orders, alternation, chance. They are there to be compared with."""

import random
from collections.abc import Callable

from agent.config.task import TaskConfig
from agent.policy.base import numbers, remedied, rows_of_prompt, stop_reason, training, why_remedied
from agent.protocols import Briefing
from agent.records.actions import Action, Decision, EditPrompt, Rows, Stop

Letter = str
"""One letter: p rewrites the prompt; w tunes the weights on the rows that belong to the prompt, o on the original rows,
r on refined rows, whether or not the prompt is another than the seed."""
ROWS: dict[Letter, Rows] = {"o": "original", "r": "refined"}


class Schedule:
    """Decides by the number of the round alone; see `letters_of` for the schedules that a task may name."""

    def __init__(self, config: TaskConfig) -> None:
        self.name = config.policy
        self._config = config
        self._letter = letters_of(config)

    def decide(self, briefing: Briefing) -> Decision:
        """The lever of this round; stop where the schedule, or what ends every run, says so."""
        number = len(briefing.history)
        letter = self._letter(number)
        if letter is None:
            return Decision(move=Stop(), reason="The steps have been made.", by="fixed order", policy=self.name)
        reason = f"The policy {self.name} says so for round {number + 1} of {self._config.budget.rounds}."
        action: Action = EditPrompt()
        if letter != "p":
            rows = ROWS.get(letter) or rows_of_prompt(briefing.signal, self._config)
            action = remedied(training(self._config, rows), briefing.history)
            reason += why_remedied(action, briefing.history)
        if ended := stop_reason(briefing, self._config):
            action, reason = Stop(), ended
        elif action.action in briefing.refused:
            action, reason = Stop(), f"The next step of the policy {self.name} was turned down."
        shown = numbers(briefing.signal, briefing.diagnosis)
        return Decision(move=action, reason=reason, numbers=shown, by="fixed order", policy=self.name)


def letters_of(config: TaskConfig) -> Callable[[int], Letter | None]:
    """The schedule that a task names: the lever of each round, counted from 0; None after its end.

    - `lora-only`, `prompt-only`, `p -> w -> p` and the like: the letters share the budget's rounds equally.
    - `alternate every 2`: the prompt for so many rounds, then the weights for as many, and so on.
    - `random`: either lever, by a seeded coin for each round.
    - `steps prow`: a lever for every round; then the run ends.
    """
    rounds, seed = max(1, config.budget.rounds), config.seed
    match config.policy.split():
        case ["alternate", "every", period]:
            return lambda number: "pw"[number // int(period) % 2]
        case ["random"]:
            return lambda number: random.Random(f"{seed}-{number}").choice("pw")
        case ["steps", steps]:
            return lambda number: steps[number] if number < len(steps) else None
    letters = {"lora-only": "w", "prompt-only": "p"}.get(config.policy) or config.policy.replace(" -> ", "")
    return lambda number: letters[min(number, rounds - 1) * len(letters) // rounds]
