"""Groups of a benchmark, so many at a time. What each has done is seen by the rows that it writes."""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.decisions.folder import Group, load_group, missing, results_file
from bench.decisions.results import Result, Variant, read, run_all
from bench.decisions.run_variant import run_variant
from graphs.workers.executors import Crew, followed
from memory.storage.lock import held
from ui.terminal.live import LiveView

ORPHANS = 30.0  # seconds in which the processes of a benchmark that was killed notice it


def work(groups: Mapping[Path, Group], crew: Crew, report: Callable[[Group, Result], None]) -> dict[str, str]:
    """Run what is missing of these groups, each in a process of its own.

    Args:
        groups: by their folder, which all machines of the crew share.
        report: gets each new row.

    Returns:
        What failed: the error, by the group's name.
    """
    open_groups = {folder: group for folder, group in groups.items() if missing(group, folder)}
    reported = {folder: len(read(results_file(folder))) for folder in open_groups}

    def look(folder: Path) -> None:
        rows = read(results_file(folder))
        for row in rows[reported[folder] :]:
            report(open_groups[folder], row)
        reported[folder] = len(rows)

    failed = followed(
        {
            folder: crew.command(["bench", "group", str(folder.resolve())], str(folder.resolve() / "log.txt"))
            for folder in open_groups
        },
        look,
    )
    return {open_groups[folder].folder: error for folder, error in failed.items()}


def run_group(folder: Path) -> int:
    """Run what is missing of a group. Its runs share answers and adapters; a shared one is charged all the same.

    Raises BadInput: there is no group here, or its file is damaged.
    """
    group = load_group(folder)
    with LiveView() as view, held(folder / "group", f"The group {folder.name}", wait=ORPHANS):

        def run(variant: Variant, _: int) -> Result:
            return run_variant(group, variant, folder, view)

        for _ in run_all(group.variants, [group.seed], run, results_file(folder)):
            gc.collect()  # a finished run and its services refer to each other; a variant may have another model
    return 0
