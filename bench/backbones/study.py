"""Backbones × tasks × what is done to them: a benchmark of `nesylora bench decide` for each backbone, and one table."""

from collections.abc import Sequence
from pathlib import Path

from agent.errors import BadInput
from bench.backbones.cells import CELLS
from bench.backbones.page import page
from bench.decisions.decide import decide, plan
from bench.decisions.folder import load
from bench.decisions.results import Variant
from graphs.workers.executors import Place
from memory.storage.disk import write_atomically


def run(
    models: Sequence[str], tasks: Sequence[Path], cells: Sequence[str], seeds: Sequence[int], overrides: Sequence[str],
    folder: Path, jobs: int, command: str,
) -> int:  # fmt: skip
    """Run what has not been run yet, one backbone after another, and write table.md after each. 1: a group failed.

    Args:
        models: as a task.yaml names them; a backbone's folder, and its name in the table, is the last part.
        folder: of the study; a benchmark for each backbone stands in it.

    Raises:
        BadInput: a task, model or cell cannot be used, or two backbones would have one name.
    """
    names = [Path(model).name for model in models]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"Two backbones are named {twice[0]}; rename the folder of one of them.")
    variants = [Variant(name=name, settings=CELLS[name]) for name in cells]
    plans = {
        name: plan(tasks, variants, seeds, [*overrides, f"model={_from_anywhere(model)}"])
        for name, model in zip(names, models, strict=True)
    }
    failed = 0
    for name, groups in plans.items():
        ended = decide(groups, folder / name, Place(jobs=jobs), command)
        if ended not in (0, 1):
            return ended
        failed |= ended
        if any((folder / name).glob("*/results.jsonl")):
            write(folder)
    return failed


def write(folder: Path) -> Path:
    """Write the table of all that was run so far. Raises BadInput: there is nothing."""
    found = {
        file.parents[1] for file in folder.glob("*/*/results.jsonl")
    }  # of a backbone where all failed there is none
    if not found:
        raise BadInput(f"There are no rows of a study in {folder} yet.")
    written = folder / "table.md"
    write_atomically(written, page({benchmark.name: load(benchmark) for benchmark in sorted(found)}))
    return written


def _from_anywhere(model: str) -> str:
    """A local folder by its whole path: overrides are read from the task's folder."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model
