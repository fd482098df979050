"""experience.jsonl: what each round of all runs gained and cost, a line each; rebuilt from the ledgers if lost."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import yaml
from pydantic import ValidationError

from agent.errors import BadInput
from agent.policy.experience import Experience, experience
from memory.run.folder import RunFolder, runs
from memory.storage.damage import is_damage, set_aside
from memory.storage.disk import append_line, whole_lines, write_atomically
from memory.storage.lock import held

WAIT = 60.0  # seconds; another run has the file for a moment


class ExperienceStore(Protocol):
    """Lines of several runs, of several processes too. It only grows."""

    def read(self) -> list[Experience]:
        """All lines, in the order written, each round once."""
        ...

    def append(self, line: Experience) -> None:
        """Adds a line that is on the disk when this returns. The same round a second time changes nothing."""
        ...

    def complete(self, lines: Iterable[Experience]) -> None:
        """Adds those of these lines that are not there: of runs that used another store, or that were lost."""
        ...


class ExperienceFile:
    """The lines in a file. Satisfies `ExperienceStore`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def beside(cls, root: Path) -> "ExperienceFile":
        """The file of the runs under `root`, rebuilt from their ledgers if it is lost.

        Raises:
            Busy, NesyLoraError: see `restore`.
        """
        file = cls(root / "experience.jsonl")
        if file.lost:
            file.restore(experience_in_ledgers(root))
        return file

    def mend(self, lines: Callable[[], Iterable[Experience]]) -> str:
        """Sets a damaged file aside, and writes it again of the lines that can be read and of these.

        Returns:
            What was done, in a sentence; "" where nothing is damaged.
        """
        if not any(_is_damaged(text) for text in whole_lines(self.path)):
            return ""
        with held(self.path, "The experience of all runs", WAIT):
            found = {line.key: line for line in (*lines(), *self.read())}
            said = set_aside(self.path, self.path.parent)
            write_atomically(self.path, "".join(f"{line.model_dump_json()}\n" for line in found.values()))
        return f"{said}, and written again from what could be read and from the runs' ledgers."

    @property
    def lost(self) -> bool:
        return not self.path.exists()

    def read(self) -> list[Experience]:
        """All lines that can be read, in the order written, each round once. A line that a kill cut off is left out."""
        found: dict[tuple[str, str, int], Experience] = {}
        for text in whole_lines(self.path):
            line = _line(text)
            if line is not None:
                found.setdefault(line.key, line)
        return list(found.values())

    def append(self, line: Experience) -> None:
        """Adds a line that is on the disk when this returns. The same round a second time changes nothing.

        Raises:
            Busy: another process holds the file for a minute; NesyLoraError: the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with held(self.path, "The experience of all runs", WAIT):
            text = line.model_dump_json()
            begins = text[: text.index('"task":')].encode()  # with run and number; only such lines need be parsed
            if not any(_line(known) for known in whole_lines(self.path) if known.startswith(begins)):
                append_line(self.path, text, sync=True)

    def complete(self, lines: Iterable[Experience]) -> None:
        """Adds those of these lines that are not there: of runs that used a database.

        Raises:
            Busy: another process holds the file for a minute; NesyLoraError: the disk is full.
        """
        with held(self.path, "The experience of all runs", WAIT):
            known = {line.key for line in self.read()}
            for line in lines:
                if line.key not in known:
                    append_line(self.path, line.model_dump_json(), sync=True)

    def restore(self, lines: Iterable[Experience]) -> None:
        """Writes the file, where there is none, of these lines.

        Raises:
            Busy: another process holds the file for a minute; NesyLoraError: the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with held(self.path, "The experience of all runs", WAIT):
            if self.lost:
                write_atomically(self.path, "".join(f"{line.model_dump_json()}\n" for line in lines))


def experience_in_ledgers(root: Path) -> list[Experience]:
    """What all rounds of all runs under `root` teach, the oldest run first. One that cannot be read teaches nothing."""
    return [line for run in reversed(runs(root)) for line in _rounds(run)]


def _rounds(run: RunFolder) -> list[Experience]:
    try:
        task = yaml.safe_load(run.task_file.read_text(encoding="utf-8")) or {}
        rounds, name = run.rounds(), run.about.task
    except (BadInput, OSError, UnicodeError, yaml.YAMLError):
        return []  # damaged, or of another version: no reason to keep a new run from being remembered
    if not isinstance(task, dict):
        return []
    lines = [experience(row, run.name, name, str(task.get("model", ""))) for row in rounds]
    return [line for line in lines if line is not None]


def _is_damaged(text: bytes) -> bool:
    try:
        Experience.model_validate_json(text)
    except ValidationError as error:
        return is_damage(error)
    return False


def _line(text: bytes) -> Experience | None:
    try:
        return Experience.model_validate_json(text)
    except ValidationError:
        return None
