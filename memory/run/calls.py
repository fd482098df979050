"""calls.jsonl and its like: every call to the external LLM, before it is sent and after it."""

from collections.abc import Mapping
from pathlib import Path

from agent.records.rounds import Call, Role, Usage
from memory.storage.disk import append_line, whole_lines
from memory.storage.records import parse_record


class CallFile:
    """The calls that one process of a run makes, a line each. Satisfies `agent.protocols.CallLog`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._usage: dict[Role, Usage] = {}

    def log(self, call: Call) -> None:
        """Notes a call. Not synced: only what was said to a dead machine could be lost."""
        append_line(self.path, call.model_dump_json(), sync=False)

    def calls(self) -> list[Call]:
        """All lines in the order written. Raises BadInput: a whole line is not a call; names file and line."""
        lines = enumerate(whole_lines(self.path), 1)
        return [parse_record(Call, line, f"{self.path}, line {number},") for number, line in lines]

    def usage(self) -> Mapping[Role, Usage]:
        """What the calls cost by role; read again only where the file has grown, since it is asked at every step."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self._size:
            latest = {call.number: call for call in self.calls()}
            usage: dict[Role, Usage] = {}
            for call in latest.values():
                usage[call.role] = usage.get(call.role, Usage()) + call.usage
            self._size, self._usage = size, usage
        return self._usage
