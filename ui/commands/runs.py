"""`nesylora runs`: the runs there are."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.errors import BadInput
from memory.run.folder import RunFolder, runs


def list_runs(root: Path) -> int:
    """A row a run, newest first: rounds, validation reward, and test reward where it has finished."""
    console, found = Console(), runs(root)
    if not found:
        console.print(f"No runs in {root} yet. Start one with: nesylora demo")
        return 0
    table = Table("run", "rounds", "validation", "test", "state")
    table.columns[0].no_wrap = True
    for run in found:
        try:
            run.check()
            row = _state(run)
        except BadInput:
            row = (run.name, "–", "–", "–", f"damaged: nesylora resume {run.name} says where")
        table.add_row(*map(Text, row))
    console.print(table)
    return 0


def _state(run: RunFolder) -> tuple[str, ...]:
    rounds, first, outcome = run.rounds(), run.baseline(), run.outcome()
    now = rounds[-1].reward if rounds else first.reward if first else None
    return (
        run.name,
        str(len(rounds)),
        "–" if now is None or first is None else f"{first.seed_reward:.2f} → {now:.2f}",
        f"{outcome.baseline_test.reward:.2f} → {outcome.best_test.reward:.2f}" if outcome else "–",
        "finished" if outcome else "to be resumed",
    )
