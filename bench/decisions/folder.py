"""A benchmark on disk: bench.json for all of it, and a folder for each group with group.json and results.jsonl.

A *group* is a task with a seed. Its variants run one after another and share answers and adapters.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.base import Record
from bench.decisions.results import Result, Variant, read
from memory.storage.disk import write_atomically

PACKAGES = ("nesylora", "torch", "transformers", "peft")
T = TypeVar("T", bound=Record)


class Group(Record):
    """group.json. `settings` is a digest over the task's rows, scorers and settings."""

    name: str
    task: str
    seed: int
    overrides: tuple[str, ...]
    variants: tuple[Variant, ...]
    target: float
    rounds: int
    settings: str

    @property
    def folder(self) -> str:
        return f"{self.name}-seed{self.seed}"


class Manifest(Record):
    """bench.json: the machine, the versions and the last command of a benchmark; `seconds` of all its commands."""

    command: str
    versions: dict[str, str]
    processor: str
    cores: int
    jobs: int
    threads: int
    seconds: float = 0.0


# --- a group --------------------------------------------------------------------------------------


def save_group(group: Group, bench: Path) -> Path:
    """Write group.json and return the group's folder. Raises BadInput: it was begun with other rows or settings."""
    folder = bench / group.folder
    if (folder / "group.json").is_file():
        _check_unchanged(load_group(folder), group, folder)
    write_atomically(folder / "group.json", group.model_dump_json(indent=2))
    return folder


def load_group(folder: Path) -> Group:
    """The group of this folder. Raises BadInput: there is none, or group.json is damaged."""
    if not (folder / "group.json").is_file():
        raise BadInput(f"There is no group of a benchmark at {folder}.")
    return _load(Group, folder / "group.json", "Remove the folder: the group is then run again.")


def results_file(folder: Path) -> Path:
    """Where the rows of a group are."""
    return folder / "results.jsonl"


def missing(group: Group, folder: Path) -> int:
    """How many of the group's variants have no row yet."""
    done = {(row.policy, row.settings) for row in read(results_file(folder))}
    return sum((variant.name, variant.settings) not in done for variant in group.variants)


def missing_in_all(bench: Path) -> int:
    """How many rows the whole benchmark lacks: not run yet, or on a damaged line."""
    return sum(missing(load_group(file.parent), file.parent) for file in bench.glob("*/group.json"))


def _check_unchanged(before: Group, group: Group, folder: Path) -> None:
    if before.settings != group.settings:
        raise BadInput(
            f"{folder} was begun with other rows, scorers or settings of task {group.name}, so its rows would not "
            f"compare. Give the benchmark another --name."
        )
    known = {row.policy: row.settings for row in read(results_file(folder))}
    for variant in group.variants:
        if known.get(variant.name, variant.settings) != variant.settings:
            raise BadInput(
                f"{folder} has a row of {variant.name!r} with other settings ({' '.join(known[variant.name])}). Give "
                f"the variant, or the benchmark, another name."
            )


# --- the whole benchmark --------------------------------------------------------------------------


def begin(bench: Path, command: str, jobs: int, threads: int) -> Manifest:
    """Write bench.json for the command that is running; seconds of earlier commands are kept."""
    file = bench / "bench.json"
    manifest = Manifest(
        command=command,
        versions={"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}},
        processor=platform.processor() or platform.machine(), cores=os.cpu_count() or 1, jobs=jobs,
        threads=threads,
        seconds=_load_manifest(file).seconds if file.is_file() else 0.0,
    )  # fmt: skip
    write_atomically(file, manifest.model_dump_json(indent=2))
    return manifest


def add_seconds(manifest: Manifest, seconds: float, bench: Path) -> None:
    """Write bench.json again, with so many seconds more than `manifest` has."""
    later = manifest.model_copy(update={"seconds": manifest.seconds + seconds})
    write_atomically(bench / "bench.json", later.model_dump_json(indent=2))


def load(bench: Path) -> tuple[Manifest, list[Result]]:
    """What was measured so far, by all commands. Raises BadInput: there is nothing."""
    rows = [row for file in sorted(bench.glob("*/results.jsonl")) for row in read(file)]
    if not rows or not (bench / "bench.json").is_file():
        raise BadInput(f"There are no rows of a benchmark in {bench} yet.")
    return _load_manifest(bench / "bench.json"), rows


def _load_manifest(file: Path) -> Manifest:
    return _load(Manifest, file, "Remove it, and start the command again: that writes it anew.")


def _load(kind: type[T], file: Path, way_out: str) -> T:
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{file} cannot be read. {way_out}") from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from a checkout"
