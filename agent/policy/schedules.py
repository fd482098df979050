"""Policies that do not look: fixed orders, alternation, chance. They are there to be compared with."""

import random
from abc import ABC, abstractmethod

from agent.config.task import TaskConfig
from agent.policy.base import given_rows, numbers, stop_reason, training
from agent.protocols import Briefing, Policy
from agent.records.actions import Action, Decision, EditPrompt, Rows, Stop


class Unseeing(ABC):
    """Decides by the number of the round alone."""

    def __init__(self, name: str, config: TaskConfig) -> None:
        self.name = name
        self._config = config

    @abstractmethod
    def letter(self, number: int) -> str:
        """The lever of a round, counted from 0: p, w (weights on the rows that belong to the prompt), o or r.

        o: weights on rows as given; r: on refined rows, whether or not the prompt is another than the seed.
        """

    def decide(self, briefing: Briefing) -> Decision:
        signal, number = briefing.signal, len(briefing.history)
        shown = numbers(signal, briefing.diagnosis)
        if ended := stop_reason(briefing, self._config):
            return Decision(move=Stop(), reason=ended, numbers=shown, by="fixed order")
        move = self._move(self.letter(number), briefing)
        if move.action in briefing.refused:
            turned_down = "The fixed order's next step was turned down."
            return Decision(move=Stop(), reason=turned_down, numbers=shown, by="fixed order")
        reason = f"The policy {self.name} says so for round {number + 1} of {self._config.budget.rounds}."
        return Decision(move=move, reason=reason, numbers=shown, by="fixed order")

    def _move(self, letter: str, briefing: Briefing) -> Action:
        if letter == "p":
            return EditPrompt()
        named: dict[str, Rows] = {"o": "original", "r": "refined"}
        return training(self._config, named.get(letter) or given_rows(briefing.signal, self._config))


class FixedOrder(Unseeing):
    """The letters of its order share the budget's rounds equally."""

    def letter(self, number: int) -> str:
        letters = {"lora-only": "w", "prompt-only": "p"}.get(self.name) or self.name.replace(" -> ", "")
        return letters[number * len(letters) // self._config.budget.rounds]


class Alternation(Unseeing):
    """The prompt for so many rounds, then the weights for as many, and so on."""

    def letter(self, number: int) -> str:
        period = int(self.name.rpartition(" ")[2])
        return "pw"[number // period % 2]


class Chance(Unseeing):
    """Either lever, by the toss of a seeded coin for each round."""

    def letter(self, number: int) -> str:
        return random.Random(f"{self._config.seed}-{number}").choice("pw")


class Steps(Unseeing):
    """A lever named for every round; a run of fewer rounds than its budget ends with them."""

    def letter(self, number: int) -> str:
        return self.name.rpartition(" ")[2][number]

    def decide(self, briefing: Briefing) -> Decision:
        if len(briefing.history) < len(self.name.rpartition(" ")[2]):
            return super().decide(briefing)
        return Decision(move=Stop(), reason="The steps have been made.", by="fixed order")


def make_order(config: TaskConfig) -> Policy:
    """The policy that a task names, where it is one that does not look."""
    kinds: dict[str, type[Alternation | Chance | Steps]] = {"alternate": Alternation, "random": Chance, "steps": Steps}
    return kinds.get(config.policy.split()[0], FixedOrder)(config.policy, config)
