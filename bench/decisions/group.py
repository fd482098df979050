"""A group of a benchmark: one task with one seed, its variants one after another in one process."""

import gc
import os
import threading
from pathlib import Path

from pydantic import ValidationError

from agent.errors import BadInput
from agent.protocols import Listener
from agent.records.base import Record
from bench.decisions.oracle import best_run
from bench.decisions.run_variant import play, result
from bench.decisions.suite import ORACLE, Result, Variant, read, run_all
from graphs.services.garbage_collection import without_garbage_collection
from memory.run.folder import RunFolder
from memory.storage.disk import write_atomically
from memory.storage.lock import held
from ui.terminal.live import LiveView

ORPHANS = 30.0  # seconds in which the processes of a benchmark that was killed notice


class Group(Record):
    """What a group's folder says that it is. `settings` is a digest over the task's rows, scorers and settings."""

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


def save(group: Group, bench: Path) -> Path:
    """The group's folder, laid out. Raises BadInput: it was begun with other rows or settings."""
    folder = bench / group.folder
    if (folder / "group.json").is_file():
        _check(_load(folder), read_rows(folder), group, folder)
    write_atomically(folder / "group.json", group.model_dump_json(indent=2))
    return folder


def read_rows(folder: Path) -> list[Result]:
    """The rows of a group so far."""
    return read(_results(folder))


def missing(group: Group, folder: Path) -> int:
    """How many of the group's variants have no row yet."""
    done = {(row.policy, row.settings) for row in read_rows(folder)}
    return sum((variant.name, variant.settings) not in done for variant in group.variants)


def to_come(bench: Path) -> int:
    """How many rows a benchmark lacks: not played yet, or of which the line was damaged."""
    return sum(missing(_load(file.parent), file.parent) for file in bench.glob("*/group.json"))


def play_group(folder: Path) -> int:
    """Go on with a group to its end. Runs of it have answers and adapters in common: one that is known is charged."""
    if not (folder / "group.json").is_file():
        raise BadInput(f"There is no group of a benchmark at {folder}.")
    group = _load(folder)
    if missing(group, folder):
        _import_heavy()
    with LiveView() as view, held(folder / "group", f"The group {folder.name}", wait=ORPHANS):
        rows = run_all(
            group.variants, [group.seed], lambda variant, _: _row(group, variant, folder, view), _results(folder)
        )
        for _ in rows:
            gc.collect()  # a run and its model hold each other: two models at a time may be one too many
    return 0


def _import_heavy() -> None:
    """Before any run's clock starts: the first one would be charged with it."""
    with without_garbage_collection():
        import tools.model.backbone
        import tools.model.loading
        import tools.training.lora  # noqa: F401


def end_with_parent() -> None:
    """Leave as soon as whoever holds the other end of stdin is gone, however it went: nobody works on unseen."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: a thread that waits in it keeps the interpreter from its end
        os._exit(1)  # as a kill would; what is on disk goes on from there

    threading.Thread(target=wait, daemon=True).start()


def _row(group: Group, variant: Variant, folder: Path, view: Listener) -> Result:
    def run(settings: tuple[str, ...], name: str) -> RunFolder:
        given = [*group.overrides, *settings, f"seed={group.seed}"]
        return play(Path(group.task), given, folder, name, listener=view, pool=str(folder / "pool"))

    if variant.name == ORACLE:
        best = best_run(group.rounds, group.target, lambda steps: run((f"policy=steps {steps}",), f"steps-{steps}"))
        return result(best, variant, group.seed, group.target)
    return result(run(variant.settings, variant.folder), variant, group.seed, group.target)


def _check(before: Group, rows: list[Result], group: Group, folder: Path) -> None:
    if before.settings != group.settings:
        raise BadInput(
            f"{folder} was begun with other rows, scorers or settings of task {group.name}, so its rows would not "
            f"compare. Give the benchmark another --name."
        )
    known = {row.policy: row.settings for row in rows}
    for variant in group.variants:
        if known.get(variant.name, variant.settings) != variant.settings:
            raise BadInput(
                f"{folder} has a row of {variant.name!r} with other settings ({' '.join(known[variant.name])}). Give "
                f"the variant, or the benchmark, another name."
            )


def _load(folder: Path) -> Group:
    try:
        return Group.model_validate_json((folder / "group.json").read_bytes())
    except ValidationError as error:
        raise BadInput(f"{folder / 'group.json'} cannot be read. Take the folder away: it is played anew.") from error


def _results(folder: Path) -> Path:
    return folder / "results.jsonl"
