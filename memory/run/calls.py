"""calls.jsonl and its like: every call to the external LLM, before it is sent and after it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import ValidationError

from agent.records.rounds import Call, Role, Usage
from memory.storage.damage import copy_aside, is_damage
from memory.storage.disk import append_line, whole_lines, write_atomically
from memory.storage.lock import held_shortly
from memory.storage.records import parse_record

WAIT = 60.0  # seconds for another process that notes a call


class CallFile:
    """The calls that one process of a run makes, a line each. Satisfies `agent.protocols.CallLog`.

    Files of one run have one lock: a run and its chat reserve of the same money.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._usage: dict[Role, Usage] = {}

    def log(self, call: Call) -> None:
        """Notes a call. Not synced: only what was said to a dead machine could be lost."""
        append_line(self.path, call.model_dump_json(), sync=False)

    def alone(self) -> AbstractContextManager[None]:
        return held_shortly(self.path.with_name("calls"), f"The log of LLM calls of run {self.path.parent.name}", WAIT)

    def calls(self) -> list[Call]:
        """All lines in the order written. Raises BadInput: a whole line is not a call; names file and line."""
        lines = enumerate(whole_lines(self.path), 1)
        return [parse_record(Call, line, f"{self.path}, line {number},") for number, line in lines]

    def mend(self) -> str:
        """Charges damaged lines at the most that any call here has cost.

        Returns:
            What was done, in a sentence; "" where no line is damaged.
        """
        if not self.path.exists():
            return ""
        with self.alone():
            return self._mended()

    def _mended(self) -> str:
        good, faults = self._read()
        if not faults or not all(is_damage(fault) for fault in faults):  # else: of another version
            return ""
        damaged = len(faults)
        said = copy_aside(self.path, self.path.parent)
        dearest = _dearest(good)
        first = min(
            (call.number for call in good), default=1
        )  # a process that still counts upwards meets none of these
        lost = [
            dearest.model_copy(
                update={"number": min(first, 1) - place, "settled": True, "fault": "the log was damaged"}
            )
            for place in range(1, damaged + 1)
            if dearest
        ]
        write_atomically(self.path, "".join(f"{call.model_dump_json()}\n" for call in (*good, *lost)))
        if not good:
            return f"{said}. What calls that were lost ({damaged}) have cost is not known, and not counted."
        return f"{said}. Calls that were lost ({damaged}) are charged at the most that a call of this run has cost."

    def usage(self) -> Mapping[Role, Usage]:
        """What the calls cost by role; read again only where the file has grown, since it is asked at every step."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self._size:
            self._size, self._usage = size, _by_role(self.calls())
        return self._usage

    def known_usage(self) -> Usage:
        """What all calls cost, with each damaged line at the most that one has cost. For who cannot mend it."""
        good, faults = self._read()
        dearest = _dearest(good)
        lost = [dearest.usage] * len(faults) if dearest else []
        return sum((*_by_role(good).values(), *lost), Usage())

    def _read(self) -> tuple[list[Call], list[ValidationError]]:
        """The calls of the lines that can be read, and what is wrong with the others."""
        good, faults = list[Call](), list[ValidationError]()
        for line in whole_lines(self.path):
            try:
                good.append(Call.model_validate_json(line))
            except ValidationError as error:
                faults.append(error)
        return good, faults


def _dearest(calls: Sequence[Call]) -> Call | None:
    return max(calls, key=lambda call: (call.usage.usd, call.usage.tokens), default=None)


def _by_role(calls: Sequence[Call]) -> dict[Role, Usage]:
    """What the calls cost; of a call that is noted twice, the later line counts."""
    usage: dict[Role, Usage] = {}
    for call in {call.number: call for call in calls}.values():
        usage[call.role] = usage.get(call.role, Usage()) + call.usage
    return usage
