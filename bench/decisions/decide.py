"""`nesylora bench decide`: policies, tasks and seeds at equal budget, to find out who decides well."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from agent.errors import BadInput
from agent.records.base import digest
from bench.decisions.group import Group, missing, read_rows, save
from bench.decisions.manifest import begin
from bench.decisions.manifest import save as save_bench
from bench.decisions.output import a_console, write
from bench.decisions.suite import ORACLE, Result, Variant
from bench.decisions.workers import work
from memory.storage.lock import held
from ui import wording


class Progress:
    """Tells each row that is done, how many there are to come, and about how long that takes."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        self._console = console
        self._total = total
        self._before = self._done = done
        self._began = time.monotonic()

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
    """The groups, task by task. Raises BadInput before anything is begun: a task, a variant or a name twice."""
    from bench.decisions.run_variant import ALONE
    from eval.tasks.task import load_task
    from graphs.services.run_memory import check_experience

    _differ("variant", [variant.folder.rpartition("-")[0] for variant in variants])
    groups = []
    for task in tasks:
        read = load_task(task, overrides)
        for variant in (one for one in variants if one.name != ORACLE):
            own = load_task(task, [*ALONE, *overrides, *variant.settings])
            check_experience(own.config, own.folder)
            if own.digest != read.digest:
                raise BadInput(f"The variant {variant.name!r} has other rows or scorers, so that it would not compare.")
        settings = read.config.model_dump(mode="json", exclude={"policy", "without", "seed", "experience"})
        groups += [
            Group(
                name=read.config.name, task=str(task.resolve()), seed=seed, overrides=tuple(overrides),
                variants=tuple(variants), target=read.config.target, rounds=read.config.budget.rounds,
                settings=digest([read.digest, settings]),
            )
            for seed in dict.fromkeys(seeds)
        ]  # fmt: skip
    _differ("group", [group.folder for group in groups])
    return groups


def decide(groups: Sequence[Group], folder: Path, jobs: int, command: str) -> int:
    """Play what has not been played yet, then write and show how all policies stand. 1: a group failed."""
    console = a_console()
    with held(folder / "bench", f"The benchmark {folder.name}"):
        laid_out = {save(group, folder): group for group in groups}
        bench = begin(folder, command, jobs)
        progress = _progress(console, laid_out)

        def tell(group: Group, row: Result) -> None:
            progress(group, row)
            save_bench(bench.lasted(progress.seconds), folder)

        try:
            failed = work(laid_out, jobs, tell)
        except KeyboardInterrupt:
            said = f"Stopped. What was completed stands in {folder}; the same command goes on."
            console.print(said, markup=False, soft_wrap=True)
            return 130
        for name, error in failed.items():
            console.print(f"Failed: {name}: {error}", style="red", markup=False, soft_wrap=True)
        if any(map(read_rows, laid_out)):
            write(folder, console)
    return 1 if failed else 0


def _progress(console: Console, groups: Mapping[Path, Group]) -> Progress:
    total = sum(len(group.variants) for group in groups.values())
    left = sum(missing(group, folder) for folder, group in groups.items())
    known = f", {total - left} of them done before" if total > left else ""
    console.print(f"{wording.plural(total, 'run')} in {wording.plural(len(groups), 'group')}{known}.")
    return Progress(console, total, total - left)


def _differ(what: str, names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise BadInput(f"Each {what} needs a name of its own, and there are two named {twice[0]}.")
