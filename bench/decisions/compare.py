"""`nesylora compare`: the rules beside the fixed orders, on the same rows, seeds and budget."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from agent.records.base import digest
from bench.decisions.run_variant import play, result
from bench.decisions.suite import Result, Variant, named, run_all, table
from ui.terminal.live import LiveView


def compare(task: Path, policies: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], runs: Path) -> int:
    """Run what has not been run yet, and print the table. No run sees what another one remembered."""
    from eval.tasks.task import load_task

    read = load_task(task, overrides)
    settings = read.config.model_dump(mode="json", exclude={"policy", "seed"})
    folder = runs / f"compare-{read.config.name}-{digest([read.digest, settings])[:6]}"
    folder.mkdir(parents=True, exist_ok=True)

    def adapt(variant: Variant, seed: int) -> Result:
        given = [*overrides, *variant.settings, f"seed={seed}"]
        with LiveView() as view:
            run = play(task, given, folder, f"{variant.folder}-seed{seed}", listener=view)
        return result(run, variant, seed, read.config.target)

    results = list(run_all([named(policy) for policy in policies], seeds, adapt, folder / "results.jsonl"))
    with LiveView() as view:
        head, *rows = table(results)
        title = f"{read.config.name}, sealed test rows, seeds {', '.join(map(str, seeds))}; edits and LoRA: rounds kept"
        shown = Table(*head, title=title)
        shown.columns[0].no_wrap = True
        for row in rows:
            shown.add_row(*row)
        view.console.print(shown)
        view.console.print(f"Rows: {folder / 'results.jsonl'}")
    return 0
