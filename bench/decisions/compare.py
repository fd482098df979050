"""`nesylora compare`: the rules beside the fixed orders, on the same rows, seeds and budget."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from rich.table import Table

from agent.errors import BadInput
from agent.policy.learned import short
from agent.records.base import digest
from bench.decisions.comparison import Comparison
from bench.decisions.output import console_for_tables
from bench.decisions.results import Result, Variant, named, read, run_all
from bench.decisions.run_variant import begun_run, finished_run, result
from bench.decisions.tables import COMMONEST, alike
from graphs.workers.executors import Place, crew
from graphs.workers.spread import spread
from memory.run.folder import RunFolder
from memory.storage.disk import append_line
from ui.terminal.live import LiveView


def compare(
    task: Path, policies: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], runs: Path, place: Place
) -> int:
    """Run what has not been run yet, and print the table. No run sees what another one remembered. 1: a run failed."""
    from eval.tasks.task import load_task

    loaded = load_task(task, overrides)
    settings = loaded.config.model_dump(mode="json", exclude={"policy", "seed", "processes", "shard", "memory"})
    folder = runs / f"compare-{loaded.config.name}-{digest([loaded.digest, settings])[:6]}"
    if min(seeds) < 0:
        raise BadInput("--seeds must not be below 0.")
    variants = [named(policy) for policy in policies]
    for variant in variants:  # before hours of runs, not after
        load_task(task, [*overrides, *variant.settings])
    folder.mkdir(parents=True, exist_ok=True)

    def run(variant: Variant, seed: int) -> Result:
        settings = [*overrides, *variant.settings, f"seed={seed}"]
        with LiveView() as view:
            finished = finished_run(task, settings, folder, f"{variant.folder}-seed{seed}", listener=view)
        return result(finished, variant, seed, loaded.config.target)

    file = folder / "results.jsonl"
    if not place.one_at_a_time:
        cells = [(variant, seed) for seed in seeds for variant in variants]
        if _run_at_once(task, cells, overrides, file, loaded.config.target, place):
            return 1
    results = list(run_all(variants, seeds, run, file))
    title = f"{loaded.config.name}, sealed test rows, seeds {', '.join(map(str, seeds))}; edits and LoRA: rounds kept"
    with LiveView() as view:
        view.console.print(_table(title, results))
        view.console.print(f"Rows: {folder / 'results.jsonl'}")
    return 0


def _run_at_once(
    task: Path, cells: Sequence[tuple[Variant, int]], overrides: Sequence[str], file: Path, target: float, place: Place
) -> bool:
    """Run those that have no row yet, each in a process of its own, and write their rows. Whether one has failed."""
    done = {(row.policy, row.settings, row.seed) for row in read(file)}
    waiting: dict[str, tuple[Variant, int]] = {}
    runs = []
    for variant, seed in cells:
        if (variant.name, variant.settings, seed) not in done:
            settings = [*overrides, *variant.settings, f"seed={seed}"]
            runs.append(begun_run(task, settings, file.parent, f"{variant.folder}-seed{seed}"))
            waiting[runs[-1].name] = variant, seed
    console = console_for_tables()

    def look(run: RunFolder) -> None:
        if run.name in waiting and run.outcome():
            row = result(run, *waiting.pop(run.name), target)
            append_line(file, row.model_dump_json(), sync=False)
            console.print(f"{len(runs) - len(waiting)}/{len(runs)}  {run.name}: {row.best.reward:.2f} {row.levers}")

    with crew(place) as workers:
        failed = spread(runs, workers, look)
    for run in runs:  # what had ended before, without its row
        look(run)
    for path, error in failed.items():
        console.print(f"Failed: {path.name}: {error}", style="red", markup=False, soft_wrap=True)
    return bool(failed)


def _table(title: str, results: Sequence[Result]) -> Table:
    """A row for each policy, with means over seeds."""
    shown = Table(
        "policy", "test reward", "content", "style", "rounds", "edits", "LoRA", "tokens", "min", "drift", title=title
    )
    shown.columns[0].no_wrap = True
    shown.add_row(COMMONEST, alike(Comparison(results).alike()), *["–"] * (len(shown.columns) - 2))
    for policy in dict.fromkeys(row.policy for row in results):
        own = [row for row in results if row.policy == policy]

        def mean(get: Callable[[Result], float], rows: Sequence[Result] = own) -> float:
            return fmean(map(get, rows))

        interval = f" [{own[0].best.low:.2f}, {own[0].best.high:.2f}]" if len(own) == 1 else ""
        shown.add_row(
            policy,
            f"{mean(lambda r: r.best.reward):.2f}{interval}",
            f"{mean(lambda r: r.best.content):.2f}",
            f"{mean(lambda r: r.best.style):.2f}",
            f"{mean(lambda r: r.rounds):.1f}",
            f"{mean(lambda r: r.kept_edits):.1f}",
            f"{mean(lambda r: r.kept_lora):.1f}",
            short(mean(lambda r: r.spend.forward_tokens)),
            f"{mean(lambda r: r.spend.seconds) / 60:.1f}",
            "–" if any(row.drift is None for row in own) else f"{mean(lambda r: r.drift or 0.0):.2f}",
        )
    return shown
