"""`nesylora runs`: the runs there are."""

import json
import textwrap
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.errors import BadInput
from memory.run.folder import RunFolder, runs
from memory.run.naming import as_typed
from ui import wording
from ui.control.states import state_of

CURVE = 16  # rewards that a line shows, the latest
NOTE = 100  # characters of why a run is not working; `--json` and `ctl status` have all of it


def list_runs(root: Path, as_json: bool = False) -> int:
    """A row a run, newest first: rounds, validation reward and its curve, test reward where it has finished, state."""
    console, found = Console(), runs(root)
    if as_json:
        for run in found:
            print(json.dumps(_record(run), ensure_ascii=False))
        return 0
    if not found:
        console.print(f"No runs in {root} yet. Start one with: nesylora demo")
        return 0
    table = Table("run", "rounds", "validation", "curve", "test", "state", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[:5]:  # the state may take two lines, and no number does
        column.no_wrap = True
    table.columns[1].justify = "right"
    for run in found:
        try:
            row = _row(run)
        except BadInput:
            mend = f"damaged: nesylora resume {as_typed(run.path)} mends it, or says where"
            row = (run.name, "–", "–", "", "–", mend)
        table.add_row(*map(Text, row))
    console.print(table)
    return 0


def _row(run: RunFolder) -> tuple[str, ...]:
    state, note = state_of(run)
    rewards, outcome = _rewards(run), run.outcome()
    return (
        run.name,
        str(len(run.rounds())),
        f"{rewards[0]:.2f} → {rewards[-1]:.2f}" if rewards else "–",
        wording.sparkline(rewards[-CURVE:]),
        f"{outcome.baseline_test.reward:.2f} → {outcome.best_test.reward:.2f}" if outcome else "–",
        f"{state}: {textwrap.shorten(wording.printable(note), NOTE, placeholder=' …')}" if note else state,
    )


def _rewards(run: RunFolder) -> list[float]:
    """Validation rewards of the seed prompt, and of the best pair from the baseline on."""
    first = run.baseline()
    if first is None:
        return []
    recalled = [first.reward] if first.best != first.seed else []
    return [first.seed_reward, *recalled, *(row.reward for row in run.rounds())]


def _record(run: RunFolder) -> dict[str, object]:
    try:
        state, note = state_of(run)
        rewards, outcome = _rewards(run), run.outcome()
    except BadInput as error:
        return {"run": run.name, "folder": str(run.path), "state": "damaged", "note": str(error)}
    return {
        "run": run.name,
        "folder": str(run.path),
        "state": state,
        "note": note,
        "rounds": len(run.rounds()),
        "rewards": rewards,
        "test": outcome.best_test.reward if outcome else None,
        "seen": outcome.seen if outcome else None,
    }
