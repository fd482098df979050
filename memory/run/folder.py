"""The run folder: the truth of a run. Every other memory can be rebuilt from it."""

import itertools
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from agent.errors import BadInput
from agent.policy.experience import Experience
from agent.records.base import FORMAT, Record
from agent.records.evaluation import Fitting, Measurements
from agent.records.events import Event
from agent.records.examples import Candidate, Prompt, Split
from agent.records.rounds import Baseline, Call, Outcome, Round
from memory.prompts import Entry
from memory.rewrites import KeptRewrite, Reworded
from memory.run.charges import ChargeFile
from memory.run.events import EventFile, EventLog
from memory.run.ledger import Row, RowFile
from memory.storage.disk import append_line, whole_lines, write_atomically
from memory.storage.lock import held

R = TypeVar("R", bound=Record)
EXPERIENCES = TypeAdapter(tuple[Experience, ...])


class About(Record):
    """run.json: where a run comes from. `source` is the absolute folder of its task.yaml, `digest` that of its data.

    What a later version adds is passed over, so that it can be told by its `format`.
    """

    model_config = ConfigDict(extra="ignore")

    task: str
    source: str
    digest: str
    version: str
    created: str
    format: int = Field(0, description="agent.records.FORMAT of the version that began the run")


class RunFolder:
    """`runs/<name>/`: all that a run decided, made and measured.

    What writes may raise NesyLoraError: the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.name = self.path.name
        self.task_file = self.path / "task.yaml"
        self.checkpoints = self.path / "checkpoints.sqlite"
        self.report_html = self.path / "report.html"
        self.report_md = self.path / "report.md"
        self.charges = ChargeFile(self.path / "charge.json")
        self._ledger = RowFile(self.path / "ledger.jsonl")
        self._events = EventFile(self.path / "events.jsonl")
        self._calls = self.path / "calls.jsonl"

    # --- a run as a whole ---------------------------------------------------------------------------

    @classmethod
    def create(
        cls, root: Path, task_name: str, task_yaml: str, source: Path, digest: str, name: str | None = None
    ) -> "RunFolder":
        """A new run under `root`.

        Args:
            task_yaml: the resolved configuration.
            source: the folder of the original task.yaml, against which its data paths stand.
            digest: of the task's data, so that a resume can refuse data that has changed.
            name: by default `<task>-<YYYYmmdd-HHMMSS>`, numbered if that is taken.

        Raises:
            BadInput: the name cannot be a folder's, or is taken.
        """
        run = cls(_new_folder(root, task_name, name))
        about = About(
            task=task_name,
            source=str(source.resolve()),
            digest=digest,
            version=_version(),
            created=datetime.now(UTC).isoformat(),
            format=FORMAT,
        )
        write_atomically(run.task_file, task_yaml)
        write_atomically(run.path / "run.json", about.model_dump_json(indent=2))  # last: it makes the folder a run
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The run at `path`. Raises BadInput with the nearest names if there is none, or if its run.json is damaged."""
        run = cls(path)
        if not (run.path / "run.json").is_file():
            raise BadInput(f"There is no run at {path}. {_nearest(run.path)}")
        run.check()
        return run

    def check(self) -> None:
        """Raises BadInput where run.json cannot be read."""
        _ = self.about

    def discard_unless_begun(self) -> None:
        """Takes the folder away where nothing was measured in it yet."""
        if self.baseline() is None and not (self.path / "evaluations").exists():
            shutil.rmtree(self.path, ignore_errors=True)

    @cached_property
    def about(self) -> About:
        return _record(About, self.path / "run.json")

    @contextmanager
    def as_begun(self) -> Iterator[None]:
        """Where a run of another version cannot be read inside, says that, and not that a file is damaged.

        Raises:
            BadInput: that; or, at once, the run is of a later version than this.
        """
        about = self.about
        theirs, ours = f"{about.version}, format {about.format}", f"{_version()}, format {FORMAT}"
        begun = f"Run {self.name} was begun by another version of NeSyLoRA ({theirs}; this is {ours})"
        if about.format > FORMAT:
            raise BadInput(f"{begun}, whose runs are written otherwise. Go on with that version, or start a new run.")
        try:
            yield
        except BadInput as error:
            if about.format == FORMAT:
                raise
            raise BadInput(
                f"{begun}, which may be why: {error} Go on with that version, or start a new run."
            ) from error

    def locked(self) -> AbstractContextManager[None]:
        """Keeps the run for this process. Raises Busy, naming the holder, when another live one has it."""
        return held(self.path / "run", f"The run {self.name}")

    def save_fitting(self, fitting: Fitting) -> None:
        """Keeps how the task's rows fit the model."""
        write_atomically(self.path / "rows.json", fitting.model_dump_json(indent=2))

    def fitting(self) -> Fitting | None:
        """What `save_fitting` kept; None before, and in runs of older versions, which take rows as they are."""
        path = self.path / "rows.json"
        return _record(Fitting, path) if path.exists() else None

    # --- artefacts ----------------------------------------------------------------------------------

    def save_prompt(self, prompt: Prompt) -> str:
        """Its id, once the prompt stands in prompts/<id>.json."""
        path = self._place("prompts", prompt.id, ".json")
        if not path.exists():
            write_atomically(path, prompt.model_dump_json(indent=2))
        return prompt.id

    def prompt(self, id: str) -> Prompt:
        """Raises BadInput: not an id, not in this run, or changed since it was saved."""
        path = self._place("prompts", id, ".json")
        prompt = _record(Prompt, path)
        if prompt.id != id:
            raise BadInput(f"{path} was changed after it was saved (it is now prompt {prompt.id}). Put it back.")
        return prompt

    def adapter_folder(self, id: str) -> Path:
        """Where the adapter is, or is to be written. Raises BadInput: not an id."""
        return self._place("adapters", id)

    def has_adapter(self, id: str) -> bool:
        """Whether it was written to its end: its last file is an empty one named `complete`."""
        return (self.adapter_folder(id) / "complete").is_file()

    def save(self, measured: Measurements) -> None:
        """Keeps all that is known of a candidate on a split, in the place of what was kept before."""
        write_atomically(self._evaluation(measured.candidate, measured.split), measured.model_dump_json(indent=2))

    def load(self, candidate: Candidate, split: Split) -> Measurements:
        """What `save` kept for just this candidate and split; empty if nothing."""
        path = self._evaluation(candidate, split)
        return _record(Measurements, path) if path.exists() else Measurements(candidate=candidate, split=split)

    def keep(self, entry: Entry) -> None:
        """Keeps what the prompt memory is told, so that it can be rebuilt."""
        write_atomically(self._place("remembered", entry.prompt.id, ".json"), entry.model_dump_json(indent=2))

    def remembered(self) -> list[Entry]:
        return [_record(Entry, path) for path in sorted((self.path / "remembered").glob("*.json"))]

    def save_reworded(self, number: int, made: Reworded) -> None:
        """Keeps what a round made of hard questions. In one file, so that a kill leaves all of it or nothing.

        A second time for the same round changes nothing.
        """
        path = self._reworded(number)
        if not path.exists():
            write_atomically(path, made.model_dump_json(indent=2))

    def reworded(self, number: int) -> Reworded | None:
        """What `save_reworded` kept for a round."""
        path = self._reworded(number)
        return _record(Reworded, path) if path.exists() else None

    def rewrites(self) -> list[KeptRewrite]:
        """All that this run kept, by id: to be trained on, and to rebuild the memory from."""
        made = [_record(Reworded, path) for path in (self.path / "rewrites").glob("round-*.json")]
        return sorted((rewrite for one in made for rewrite in one.kept), key=lambda rewrite: rewrite.id)

    def learned_from(self, known: Callable[[], Sequence[Experience]]) -> tuple[Experience, ...]:
        """What this run's policy learns from: `known` is asked, and kept, once, so that a resume decides the same.

        Raises BadInput: what was kept cannot be read; and what `known` raises.
        """
        path = self.path / "experience.json"
        if not path.exists():
            write_atomically(path, EXPERIENCES.dump_json(tuple(known())).decode())
        try:
            return EXPERIENCES.validate_json(path.read_bytes())
        except ValidationError as error:
            raise BadInput(f"{path} cannot be read: {error}. Put it back from a copy.") from error

    # --- the ledger, the events and the calls ---------------------------------------------------------

    def append(self, row: Row) -> None:
        """Adds a row that is on the disk when this returns. The same kind and number a second time changes nothing."""
        self._ledger.append(row)

    def baseline(self) -> Baseline | None:
        return next((row for row in self._ledger.read() if isinstance(row, Baseline)), None)

    def rounds(self) -> list[Round]:
        return [row for row in self._ledger.read() if isinstance(row, Round)]

    def outcome(self) -> Outcome | None:
        return next((row for row in self._ledger.read() if isinstance(row, Outcome)), None)

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

    def log(self, call: Call) -> None:
        """Notes a call to the LLM. Not synced: only what was said to a dead machine could be lost."""
        append_line(self._calls, call.model_dump_json(), sync=False)

    def calls(self) -> list[Call]:
        """All lines in the order written. Raises BadInput: a whole line is not a call; names file and line."""
        lines = enumerate(whole_lines(self._calls), 1)
        return [_valid(Call, line, f"{self._calls}, line {number},") for number, line in lines]

    # --- places ---------------------------------------------------------------------------------------

    def _reworded(self, number: int) -> Path:
        return self.path / "rewrites" / f"round-{number}.json"

    def _evaluation(self, candidate: Candidate, split: Split) -> Path:
        return self._place("evaluations", candidate.id, f"-{split}.json")

    def _place(self, kind: str, id: str, ending: str = "") -> Path:
        path = (self.path / kind / f"{id}{ending}").resolve()
        if not re.fullmatch("[0-9a-f]{12}", id) or not path.is_relative_to(self.path):
            raise BadInput(f"{id!r} names nothing in {self.path / kind}: an id is twelve of the digits 0-9 and a-f.")
        return path


def runs(root: Path) -> list[RunFolder]:
    """All runs under `root`, newest first. One whose run.json is damaged has its place by the file's age."""
    found = [RunFolder(file.parent) for file in root.glob("*/run.json")]
    return sorted(found, key=_created, reverse=True)


def _created(run: RunFolder) -> str:
    try:
        return run.about.created
    except BadInput:
        return datetime.fromtimestamp((run.path / "run.json").stat().st_mtime, UTC).isoformat()


def _new_folder(root: Path, task_name: str, name: str | None) -> Path:
    stem = name or f"{task_name}-{datetime.now():%Y%m%d-%H%M%S}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", stem):
        raise BadInput(f"A run cannot be named {stem!r}: use letters, digits, -, _ and . with a letter or digit first.")
    path = root / stem
    numbers = itertools.count(2)
    while not _made(path):
        if name:
            if _half_made(path):
                return path
            raise BadInput(f"There is a run named {name} in {root} already. Resume it, or choose another name.")
        path = root / f"{stem}-{next(numbers)}"
    return path


def _made(path: Path) -> bool:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _half_made(path: Path) -> bool:
    """Whether a kill cut its making off: run.json, written last, is not there, and nothing that came after it."""
    return all(file.name == "task.yaml" or file.name.endswith(".tmp") for file in path.iterdir())


def _nearest(path: Path) -> str:
    names = [run.name for run in runs(path.parent)]
    near = get_close_matches(path.name, names, n=3, cutoff=0.4) or names[:3]
    return f"The nearest are: {', '.join(near)}." if near else f"There are no runs in {path.parent} yet."


def _record(kind: type[R], path: Path) -> R:
    try:
        return _valid(kind, path.read_bytes(), str(path))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist: this run has no such {kind.__name__.lower()}.") from None


def _valid(kind: type[R], text: bytes, place: str) -> R:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise BadInput(f"{place} cannot be read: {error}. Put it back from a copy.") from error


def _version() -> str:
    try:
        return version("nesylora")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
