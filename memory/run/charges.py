"""charge.json: what each step of the present round has used up, until a row of the ledger counts it.

A checkpoint counts a step once it has ended. This file is for a process that finds a step cut off, or no checkpoint.
"""

from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from agent.records.base import Record
from agent.records.rounds import Spend
from memory.storage.damage import set_aside
from memory.storage.disk import write_atomically

FIRST, LAST = "baseline", "remember"  # the nodes that write a row of the ledger: it counts the first, not the last


class Charges(Record):
    """What is in the file. Steps are named `<rounds before it>-<node>`, with an ending where a round has several."""

    steps: dict[str, Spend] = Field(default_factory=dict, description="a step's spend, from its begin to its end")
    counted: dict[str, Spend] = Field(
        default_factory=dict, description="of steps that the run's spend has had since it began anew"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_one_step(cls, fields: object) -> object:
        """As it was written while it held the last step only."""
        if isinstance(fields, dict) and "step" in fields:
            return {"steps": {fields["step"]: fields["spend"]}}
        return fields


class ChargeFile:
    """The charges of one run."""

    def __init__(self, path: Path) -> None:
        self.on_damage: Callable[[str], None] | None = None  # takes a sentence
        self._path = path

    def begin(self, step: str) -> Spend:
        """What was used up in this very step before, by processes that were killed in it.

        Forgets rounds before the last one, since checkpoints reach one step back at most; and the baseline once
        another step begins, since its row counts it.
        """
        charges, number = self._read(), _number(step)

        def recent(old: str) -> bool:
            return old == step or (_number(old) >= number - 1 and _node(old) != FIRST)

        kept = Charges(
            steps={old: spend for old, spend in charges.steps.items() if recent(old)},
            counted={old: spend for old, spend in charges.counted.items() if recent(old)},
        )
        if kept != charges:
            self._write(kept)
        return kept.steps.get(step, Spend())

    @property
    def last(self) -> tuple[int, str]:
        """The rounds before the step that began last, and its node; (0, "") before there was any."""
        step = next(reversed(self._read().steps), "")
        return (_number(step), _node(step)) if step else (0, "")

    def charge(self, step: str, spend: Spend) -> None:
        """Notes all that this step has used up so far. Often called, so not synced."""
        charges = self._read()
        self._write(charges.model_copy(update={"steps": {**charges.steps, step: spend}}))

    def restart(self, rounds: int) -> Spend:
        """What the ledger's baseline and this number of rounds do not count, for a run that restarts from them alone.

        The steps concerned count as `counted` from now on: steps that are repeated start at nothing. A second call
        returns the same.
        """
        charges = self._read()
        counted = {step: spend for step, spend in charges.counted.items() if _is_beyond(step, rounds)}
        for step, spend in charges.steps.items():
            if _is_beyond(step, rounds):
                counted[step] = counted.get(step, Spend()) + spend
        restarted = Charges(counted=counted)
        if restarted != charges:
            self._write(restarted)
        return sum(counted.values(), Spend())

    def counted(self, step: str) -> Spend:
        """What this step used up before the run was restarted; the run's spend includes it already."""
        return self._read().counted.get(step, Spend())

    def _read(self) -> Charges:
        try:
            return Charges.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return Charges()
        except ValidationError:  # torn by a dead machine
            if self.on_damage:
                self.on_damage(
                    f"{set_aside(self._path, self._path.parent)}. What steps that were cut off have used up is not "
                    "known, and not counted."
                )
            return Charges()

    def _write(self, charges: Charges) -> None:
        write_atomically(self._path, charges.model_dump_json(exclude_defaults=True), sync=False)


def _number(step: str) -> int:
    return int(step.split("-")[0])


def _node(step: str) -> str:
    return step.split("-")[1]


def _is_beyond(step: str, rounds: int) -> bool:
    """Whether no row of a ledger with so many rounds counts this step. A round's row is written in its last step."""
    if _node(step) == FIRST:
        return False
    return _number(step) >= rounds or (_number(step) == rounds - 1 and _node(step) == LAST)
