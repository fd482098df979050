"""`nesylora compare`: the rules beside the fixed orders, on the same rows, seeds and budget."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from rich.table import Table

from agent.errors import BadInput
from agent.policy.learned import short
from agent.records.base import digest
from bench.decisions.comparison import Comparison
from bench.decisions.results import Result, Variant, named, run_all
from bench.decisions.run_variant import finished_run, result
from bench.decisions.tables import COMMONEST, alike
from ui.terminal.live import LiveView


def compare(task: Path, policies: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], runs: Path) -> int:
    """Run what has not been run yet, and print the table. No run sees what another one remembered."""
    from eval.tasks.task import load_task

    loaded = load_task(task, overrides)
    settings = loaded.config.model_dump(mode="json", exclude={"policy", "seed", "processes"})
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

    results = list(run_all(variants, seeds, run, folder / "results.jsonl"))
    title = f"{loaded.config.name}, sealed test rows, seeds {', '.join(map(str, seeds))}; edits and LoRA: rounds kept"
    with LiveView() as view:
        view.console.print(_table(title, results))
        view.console.print(f"Rows: {folder / 'results.jsonl'}")
    return 0


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
