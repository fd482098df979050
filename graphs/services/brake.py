"""Where a user may break the work of a run off: which step is under way, and what may be cancelled."""

from collections.abc import Callable
from typing import NamedTuple

from agent.records.rounds import Spend

CANCELLABLE = ("train_lora", "edit_prompt", "judge")
"""The nodes in which an action is under way: a lever, and its judgement."""

Brake = Callable[[bool], None]
"""Asked again and again while a node works, and with True before it begins: raises BrokenOff where it is to stop."""


class UnderWay(NamedTuple):
    """The node that works, or worked last: its round, its name, and what the run had spent before it."""

    round: int = 0
    node: str = ""
    before: Spend = Spend()
    works: bool = True

    @property
    def cancellable(self) -> bool:
        return self.node in CANCELLABLE


def no_brake(before: bool = False) -> None:
    """Of a run that nobody steers."""
