"""How the policies of a benchmark stand, for all who ask: the terminal, table.md, and a page with plots."""

import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.decisions.comparison import Estimate, Standing
from bench.decisions.group import to_come
from bench.decisions.manifest import Bench, load
from bench.decisions.plots import Spot, bar_chart, scatter
from bench.decisions.suite import ORACLE
from bench.decisions.tables import Grid, grids, overview
from memory.storage.disk import write_atomically
from ui import report, wording
from ui.report.charts import Bar, interval_chart
from ui.report.markdown import escape

TEMPLATES = FileSystemLoader([Path(__file__).parent, Path(report.__file__).parent / "templates"])
WIDE = 130  # columns
COLOURS = {"rules": "edit_prompt", "learned": "train_lora"}


def write(folder: Path, console: Console | None = None) -> None:
    """Reads the rows, writes table.md and decide.html into `folder`, and prints the most important of it.

    Raises:
        BadInput: there are no rows.
    """
    bench, results = load(folder)
    standing = Standing(results)
    everything = grids(standing)
    write_atomically(folder / "table.md", _markdown(folder.name, bench, everything))
    write_atomically(folder / "decide.html", _page(folder.name, bench, standing, everything))
    shown = console or a_console()
    for grid in overview(standing):
        shown.print(_table(grid))
    if lacking := to_come(folder):
        shown.print(f"{wording.plural(lacking, 'row')} still to come, or damaged: play on to have them.")
    shown.print(
        f"Rows, tables and plots: {folder / 'table.md'}, {folder / 'decide.html'}", markup=False, soft_wrap=True
    )


def a_console() -> Console:
    """Wide enough for the tables where no terminal says how wide it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def about(bench: Bench) -> list[str]:
    """On what it was measured, in sentences."""
    versions = ", ".join(f"{name} {version}" for name, version in bench.versions.items())
    return [
        f"Last command: {bench.command}",
        f"{bench.processor}, {wording.plural(bench.cores, 'core')}; {wording.plural(bench.jobs, 'job')} at a time, "
        f"{wording.plural(bench.threads, 'thread')} each; {wording.duration(bench.seconds)} in all.",
        f"{versions}.",
    ]


def _table(grid: Grid) -> Table:
    table = Table(title=grid.title, caption=grid.note, title_justify="left", caption_justify="left")
    for place, head in enumerate(grid.head):
        table.add_column(head, no_wrap=place == 0, justify="left" if place == 0 else "right")
    for row in grid.rows:
        table.add_row(*map(Text, row))  # a variant's name may hold brackets
    return table


def _markdown(name: str, bench: Bench, everything: list[Grid]) -> str:
    parts = [f"# Benchmark {escape(name)}", *(escape(line) for line in about(bench))]
    for grid in everything:
        lines = [grid.head, ["---"] * len(grid.head), *([escape(cell) for cell in row] for row in grid.rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [f"## {grid.title}", escape(grid.note), table]
    return "\n\n".join(parts) + "\n"


def _page(name: str, bench: Bench, standing: Standing, everything: list[Grid]) -> str:
    environment = Environment(loader=TEMPLATES, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    facts = {"name": name, "about": about(bench), "grids": everything, "figures": _figures(standing)}
    return environment.get_template("decide.html.j2").render(facts)


def _figures(standing: Standing) -> list[tuple[str, Markup]]:
    policies = [policy for policy in standing.policies if policy != ORACLE]
    regrets = [_bar(policy, standing.regret(policy)) for policy in policies]
    shares = [_bar(policy, cost.share) for policy in policies if (cost := standing.cost(policy))]
    rewards = [
        (
            f"Joint reward on the sealed test rows of {task}; bars are 95 % intervals.",
            interval_chart([_bar(policy, standing.reward(policy, task)) for policy in standing.policies]),
        )
        for task in standing.tasks
    ]
    found = [
        ("Reward against cost: means over all tasks and seeds.", scatter(_spots(standing), "passes", "test reward")),
        ("What it took to reach the target.", bar_chart(shares, "share of the group's largest total", "{:.2g}".format)),
    ]
    if any(math.isfinite(bar.value) for bar in regrets):
        found.append(("Regret: what the oracle has more.", bar_chart(regrets, "test reward", "{:.2g}".format)))
    return [*found, *rewards]


def _spots(standing: Standing) -> list[Spot]:
    found = []
    for policy in standing.policies:
        reward, rows = standing.reward(policy), standing.rows(policy).values()
        if reward:
            spent = sum(row.spend.forward_tokens for row in rows) / len(rows)
            found.append(Spot(policy, spent, reward.mean, COLOURS.get(policy, "")))
    return found


def _bar(label: str, estimate: Estimate | None) -> Bar:
    return Bar(label, *(estimate[:3] if estimate else (math.nan, math.nan, math.nan)))
