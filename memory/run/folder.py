"""The run folder: the truth of a run. Every other memory can be rebuilt from it."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from agent.errors import BadInput
from agent.extensions import missing
from agent.records.base import FORMAT
from agent.records.events import BaselineScored, Event, LimitsSet, RoundJudged, RunFinished
from agent.records.limits import Extension, Limits
from agent.records.rounds import Baseline, Call, Outcome, Round
from memory.run.about import About, own_version
from memory.run.artefacts import Artefacts
from memory.run.calls import CallFile
from memory.run.charges import ChargeFile
from memory.run.events import EventFile, EventLog
from memory.run.ledger import TAKE_OUT, Row, RowFile, outcome_of
from memory.run.naming import as_typed, new_folder
from memory.storage.disk import write_atomically
from memory.storage.lock import held
from memory.storage.records import read_record


class RunFolder(Artefacts):
    """`runs/<name>/`: all that a run decided, made and measured.

    What writes may raise NesyLoraError: the disk is full.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.name = self.path.name
        self.task_file = self.path / "task.yaml"
        self.checkpoints = self.path / "checkpoints.sqlite"
        self.report_html = self.path / "report.html"
        self.report_md = self.path / "report.md"
        self.lock_path = self.path / "run"  # with .lock and .holder behind it
        self.charges = ChargeFile(self.path / "charge.json")
        self._ledger = RowFile(self.path / "ledger.jsonl")
        self._events = EventFile(self.path / "events.jsonl")
        self.run_calls = CallFile(self.path / "calls.jsonl")
        self.chat_calls = CallFile(self.path / "chat-calls.jsonl")  # of a conversation, maybe in another process
        self.talk = self.path / "talk.jsonl"  # what was said to it on the page, and answered

    # --- a run as a whole ---------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        root: Path,
        task_name: str,
        task_yaml: str,
        source: Path,
        digest: str,
        name: str | None = None,
        extensions: Mapping[str, str] = MappingProxyType({}),
        keep: Mapping[str, str] = MappingProxyType({}),
    ) -> "RunFolder":
        """A new run under `root`.

        Args:
            task_yaml: the resolved configuration.
            source: the folder of the original task.yaml, which its data paths are relative to.
            digest: of the task's data, so that a resume can refuse data that has changed.
            name: by default `<task>-<YYYYmmdd-HHMMSS>`, numbered if that is taken.
            extensions: the registered scorers, editor and policy that it uses; see `agent.extensions.used_by`.
            keep: digests of the other tasks that it is to keep, by their paths.

        Raises:
            BadInput: the name cannot be a folder's, or is taken.
        """
        run = cls(new_folder(root, task_name, name))
        about = About(
            task=task_name,
            source=str(source.resolve()),
            digest=digest,
            version=own_version(),
            created=datetime.now(UTC).isoformat(),
            format=FORMAT,
            extensions=dict(extensions),
            keep=dict(keep),
        )
        write_atomically(run.task_file, task_yaml)
        write_atomically(run.path / "run.json", about.model_dump_json(indent=2))  # last: it makes the folder a run
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The run at `path`. Raises BadInput with the nearest names if there is none, or if its run.json is damaged."""
        run = cls(path)
        if not (run.path / "run.json").is_file():
            names = [other.name for other in runs(run.path.parent)]
            near = get_close_matches(run.path.name, names, n=3, cutoff=0.4) or names[:3]
            hint = f"The nearest are: {', '.join(near)}." if near else f"There are no runs in {run.path.parent} yet."
            raise BadInput(f"There is no run at {path}. {hint}")
        run.check()
        return run

    def check(self) -> None:
        """Raises BadInput where run.json cannot be read."""
        _ = self.about

    def discard_unless_begun(self) -> None:
        """Removes the folder if nothing was measured in it yet."""
        if self.baseline() is None and not (self.path / "evaluations").exists():
            shutil.rmtree(self.path, ignore_errors=True)

    @cached_property
    def about(self) -> About:
        return read_record(About, self.path / "run.json")

    @contextmanager
    def as_begun(self) -> Iterator[None]:
        """Around code that reads the run: where that fails for a run of another version, the error says so.

        Raises:
            BadInput: the code inside raised it; or, at once, the run is of a later version than this, or needs an
                extension that is not registered here.
        """
        about = self.about
        theirs, ours = f"{about.version}, format {about.format}", f"{own_version()}, format {FORMAT}"
        begun = f"Run {self.name} was begun by another version of NeSyLoRA ({theirs}; this is {ours})"
        if about.format > FORMAT:
            raise BadInput(f"{begun}, whose runs are written otherwise. Go on with that version, or start a new run.")
        if lacking := missing(about.extensions):
            raise BadInput(f"Run {self.name} cannot go on: {lacking}.")
        try:
            yield
        except BadInput as error:
            if about.format == FORMAT:
                raise
            raise BadInput(
                f"{begun}, which may be why: {error} Go on with that version, or start a new run."
            ) from error

    def mend(self, notify: Callable[[str], None]) -> None:
        """From now on damage is reported and mended. For the process that has the run.

        Damaged lines of the ledger are restored from the events; one of the LLM's log is charged at the most that any
        call has cost; other files are looked at when they are read.
        """
        self.on_damage = self.charges.on_damage = notify
        if said := self._ledger.mend(self._told()):
            notify(said)
        for calls in (self.run_calls, self.chat_calls):
            if said := calls.mend():
                notify(said)

    def _told(self) -> list[Row]:
        """The rows that the events tell of, in their order; some maybe twice."""
        return [
            event.outcome if isinstance(event, RunFinished) else event.row
            for event in (entry.event for entry in self.events().entries)
            if isinstance(event, BaselineScored | RoundJudged | LimitsSet | RunFinished)
        ]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def locked(self) -> AbstractContextManager[None]:
        """Keeps the run for this process. Raises Busy, naming the holder, when another live one has it."""
        return held(self.lock_path, f"The run {self.name}")

    # --- the ledger, the events and the calls ---------------------------------------------------------

    def append(self, row: Row) -> None:
        """Adds a row that is on the disk when this returns. The same kind and number a second time changes nothing."""
        self._ledger.append(row)

    def _rows(self) -> list[Row]:
        """All rows of the ledger. Raises BadInput: it is damaged; with the way to mend it, where there is one."""
        try:
            return self._ledger.read()
        except BadInput as error:
            if not self._ledger.can_be_mended(self._told()):
                raise
            way_out = f"To go on with the run mends it, from its events: nesylora resume {as_typed(self.path)}"
            raise BadInput(f"{str(error).partition(TAKE_OUT)[0]}{way_out}") from error

    def baseline(self) -> Baseline | None:
        """Row 0 of the ledger; None before it is written. Raises BadInput, as `rounds`: it is damaged."""
        return next((row for row in self._rows() if isinstance(row, Baseline)), None)

    def rounds(self) -> list[Round]:
        return [row for row in self._rows() if isinstance(row, Round)]

    def outcome(self) -> Outcome | None:
        """How the run ended; None while it goes on, also after it was opened again.

        None, too, where the ledger is damaged: to go on with the run mends it, and `rounds` says so.
        """
        try:
            return outcome_of(self._rows())
        except BadInput:
            return None

    def outcomes(self) -> list[Outcome]:
        """Every end of the run: the test rows were opened, and seen, at each."""
        return [row for row in self._rows() if isinstance(row, Outcome)]

    def known_rows(self) -> list[Row]:
        """The rows of the ledger; where it is damaged, those that the events know. For who cannot mend it."""
        return self._ledger.known(self._told())

    def extend(self, limits: Limits, by: Literal["user", "queue"] = "user") -> Extension:
        """Lets these limits hold from now on; a run that has ended is opened again. On the disk when this returns."""
        return self._ledger.extend(limits, by)

    def limits(self) -> Limits | None:
        """Those that a user has set last, also by a damaged ledger; None: the task's own hold."""
        return next((row.limits for row in reversed(self.known_rows()) if isinstance(row, Extension)), None)

    def extensions(self) -> list[Extension]:
        """All that was set since the run began, in order."""
        return [row for row in self._rows() if isinstance(row, Extension)]

    def cancel(self, number: int) -> None:
        """Notes that a user has cancelled this round's action. A kill does not bring it back."""
        write_atomically(self.path / "cancelled", f"{number}\n")

    def is_cancelled(self, number: int) -> bool:
        """Whether a user has cancelled this round's action."""
        file = self.path / "cancelled"
        return file.exists() and file.read_text().strip() == str(number)

    @property
    def reported(self) -> bool:
        """Whether both reports are as new as the ledger; a kill may have come between them."""
        written = [file.stat().st_mtime_ns if file.exists() else 0 for file in (self.report_html, self.report_md)]
        return min(written) >= self._ledger.path.stat().st_mtime_ns

    def event(self, event: Event) -> None:
        """Notes that something happened now."""
        self._events.append(event)

    def events(self) -> EventLog:
        """All events in order, each with its time; what cannot be read is counted and left out."""
        return self._events.read()

    def events_from(self, offset: int, most: int = -1) -> tuple[EventLog, int]:
        """The events behind so many bytes of events.jsonl, and where to go on; see `EventFile.read_from`."""
        return self._events.read_from(offset, most)

    def log(self, call: Call) -> None:
        """Notes a call to the LLM that the run itself makes; those of a conversation are in `chat_calls`."""
        self.run_calls.log(call)

    def alone(self) -> AbstractContextManager[None]:
        return self.run_calls.alone()

    def calls(self) -> list[Call]:
        """The run's own calls, as `CallFile.calls`."""
        return self.run_calls.calls()


def runs(root: Path) -> list[RunFolder]:
    """All runs under `root`, newest first. A run with a damaged run.json is sorted by the file's age."""
    found = [RunFolder(file.parent) for file in root.glob("*/run.json")]
    return sorted(found, key=_created, reverse=True)


def _created(run: RunFolder) -> str:
    try:
        return run.about.created
    except BadInput:
        return datetime.fromtimestamp((run.path / "run.json").stat().st_mtime, UTC).isoformat()
