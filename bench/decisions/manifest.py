"""What a benchmark was run on, and the rows that it has."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.base import Record
from bench.decisions.group import read_rows
from bench.decisions.suite import Result
from bench.decisions.workers import threads
from memory.storage.disk import write_atomically

NAMED = ("nesylora", "torch", "transformers", "peft")


class Bench(Record):
    """On what, and by which last command, a benchmark was run; `seconds` of all its commands together."""

    command: str
    versions: dict[str, str]
    processor: str
    cores: int
    jobs: int
    threads: int
    seconds: float = 0.0

    def lasted(self, seconds: float) -> "Bench":
        """With so many more seconds."""
        return self.model_copy(update={"seconds": self.seconds + seconds})


def begin(folder: Path, command: str, jobs: int) -> Bench:
    """As the command that is running has it; its time goes on from that of those before."""
    file = folder / "bench.json"
    bench = Bench(
        command=command, versions={"python": platform.python_version(), **{name: _version(name) for name in NAMED}},
        processor=platform.processor() or platform.machine(), cores=os.cpu_count() or 1, jobs=jobs,
        threads=int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or threads(jobs)),
        seconds=_read(file).seconds if file.is_file() else 0.0,
    )  # fmt: skip
    save(bench, folder)
    return bench


def save(bench: Bench, folder: Path) -> None:
    write_atomically(folder / "bench.json", bench.model_dump_json(indent=2))


def load(folder: Path) -> tuple[Bench, list[Result]]:
    """What was measured so far, by all commands. Raises BadInput: there is nothing."""
    rows = [row for file in sorted(folder.glob("*/results.jsonl")) for row in read_rows(file.parent)]
    if not rows or not (folder / "bench.json").is_file():
        raise BadInput(f"There are no rows of a benchmark in {folder} yet.")
    return _read(folder / "bench.json"), rows


def _read(file: Path) -> Bench:
    try:
        return Bench.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{file} cannot be read. Take it away, and play on: that writes it anew.") from error


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from a checkout"
