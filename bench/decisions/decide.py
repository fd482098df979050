"""`nesylora bench decide`: policies, tasks and seeds at equal budget, to find out which policy decides well."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from agent.errors import BadInput
from agent.records.base import digest
from bench.decisions.folder import Group, add_seconds, begin, missing, results_file, save_group
from bench.decisions.output import console_for_tables, write
from bench.decisions.results import ORACLE, Result, Variant, read
from bench.decisions.run_variant import ALONE
from bench.decisions.workers import work
from graphs.workers.executors import Place, crew
from memory.storage.lock import held
from ui import wording


class Progress:
    """Prints each row that is done, how many are missing, and about how long those will take."""

    def __init__(self, console: Console, groups: Mapping[Path, Group]) -> None:
        self._console = console
        self._total = sum(len(group.variants) for group in groups.values())
        self._before = self._done = self._total - sum(missing(group, folder) for folder, group in groups.items())
        self._began = time.monotonic()
        known = f", {self._done} of them done before" if self._done else ""
        console.print(f"{wording.plural(self._total, 'run')} in {wording.plural(len(groups), 'group')}{known}.")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def __call__(self, group: Group, row: Result) -> None:
        self._done += 1
        used, left = self.seconds, self._total - self._done
        about = f", about {wording.duration(used / (self._done - self._before) * left)} left" if left else ""
        self._console.print(
            f"{self._done:>{len(str(self._total))}}/{self._total}  {group.folder}  {row.policy}: "
            f"{row.best.reward:.2f} after {wording.plural(row.rounds, 'round')} {row.levers}  "
            f"({wording.duration(used)} used{about})",
            markup=False,
            soft_wrap=True,
        )


def plan(
    tasks: Sequence[Path], variants: Sequence[Variant], seeds: Sequence[int], overrides: Sequence[str]
) -> list[Group]:
    """The groups, task by task. Nothing is run or written yet.

    Raises:
        BadInput: a task cannot be read, a variant does not fit it or would not compare, or a name stands twice.
    """
    from eval.tasks.task import load_task
    from graphs.services.run_memory import check_experience

    _check_names_differ("variant", [variant.folder.rpartition("-")[0] for variant in variants])
    groups = []
    for task in tasks:
        loaded = load_task(task, overrides)
        for variant in (variant for variant in variants if variant.name != ORACLE):
            own = load_task(task, [*ALONE, *overrides, *variant.settings])
            check_experience(own.config, own.folder)
            if own.digest != loaded.digest:
                raise BadInput(f"The variant {variant.name!r} has other rows or scorers, so that it would not compare.")
        settings = loaded.config.model_dump(
            mode="json", exclude={"policy", "without", "seed", "experience", "processes", "shard", "memory"}
        )
        groups += [
            Group(
                name=loaded.config.name, task=str(task.resolve()), seed=seed, overrides=tuple(overrides),
                variants=tuple(variants), target=loaded.config.target, rounds=loaded.config.budget.rounds,
                settings=digest([loaded.digest, settings]),
            )
            for seed in dict.fromkeys(seeds)
        ]  # fmt: skip
    _check_names_differ("group", [group.folder for group in groups])
    return groups


def decide(groups: Sequence[Group], folder: Path, place: Place, command: str) -> int:
    """Run what has not been run yet, then write and print the comparison of all policies. 1: a group failed."""
    console = console_for_tables()
    with held(folder / "bench", f"The benchmark {folder.name}"):
        by_folder = {save_group(group, folder): group for group in groups}
        progress = Progress(console, by_folder)

        try:
            with crew(place) as workers:
                manifest = begin(folder, command, workers.slots, workers.threads)

                def report(group: Group, row: Result) -> None:
                    progress(group, row)
                    add_seconds(manifest, progress.seconds, folder)

                failed = work(by_folder, workers, report)
        except KeyboardInterrupt:
            message = f"Stopped. What was completed stands in {folder}; the same command goes on."
            console.print(message, markup=False, soft_wrap=True)
            return 130
        for name, error in failed.items():
            console.print(f"Failed: {name}: {error}", style="red", markup=False, soft_wrap=True)
        if any(read(results_file(group)) for group in by_folder):
            write(folder, console)
    return 1 if failed else 0


def _check_names_differ(what: str, names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise BadInput(f"Each {what} needs a name of its own, and there are two named {twice[0]}.")
