"""The comparison of a benchmark's policies, written: on the terminal, as table.md, and as decide.html with plots."""

import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from bench.decisions.comparison import Comparison, Estimate
from bench.decisions.folder import Manifest, load, missing_in_all
from bench.decisions.results import ORACLE
from bench.decisions.tables import Table, all_tables, overview
from bench.plots import Point, bar_chart, scatter
from memory.storage.disk import write_atomically
from ui import report, wording
from ui.report.charts import Bar, interval_chart
from ui.report.markdown import escape

TEMPLATES = FileSystemLoader([Path(__file__).parent, Path(report.__file__).parent / "templates"])
WIDE = 130  # columns
COLOURS = {"rules": "edit_prompt", "learned": "train_lora"}  # CSS classes of report.css


def write(folder: Path, console: Console | None = None) -> None:
    """Read the rows, write table.md and decide.html into `folder`, and print the most important tables.

    Raises:
        BadInput: there are no rows.
    """
    manifest, results = load(folder)
    comparison = Comparison(results)
    tables = all_tables(comparison)
    write_atomically(folder / "table.md", _markdown(folder.name, manifest, tables))
    write_atomically(folder / "decide.html", _page(folder.name, manifest, comparison, tables))
    shown = console or console_for_tables()
    for table in overview(comparison):
        shown.print(_terminal_table(table))
    if lacking := missing_in_all(folder):
        shown.print(f"{wording.plural(lacking, 'row')} still to come, or damaged: run the benchmark to have them.")
    shown.print(
        f"Rows, tables and plots: {folder / 'table.md'}, {folder / 'decide.html'}", markup=False, soft_wrap=True
    )


def console_for_tables() -> Console:
    """Wide enough for the tables where no terminal says how wide it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def _about(manifest: Manifest) -> list[str]:
    """The command, the machine and the versions, in sentences."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [
        f"Last command: {manifest.command}",
        f"{manifest.processor}, {wording.plural(manifest.cores, 'core')}; {wording.plural(manifest.jobs, 'job')} at a "
        f"time, {wording.plural(manifest.threads, 'thread')} each; {wording.duration(manifest.seconds)} in all.",
        f"{versions}.",
    ]


def _terminal_table(table: Table) -> TerminalTable:
    shown = TerminalTable(title=table.title, caption=table.note, title_justify="left", caption_justify="left")
    for place, head in enumerate(table.head):
        shown.add_column(head, no_wrap=place == 0, justify="left" if place == 0 else "right")
    for row in table.rows:
        shown.add_row(*map(Text, row))  # a variant's name may hold brackets
    return shown


def _markdown(name: str, manifest: Manifest, tables: list[Table]) -> str:
    parts = [f"# Benchmark {escape(name)}", *(escape(line) for line in _about(manifest))]
    for table in tables:
        lines = [table.head, ["---"] * len(table.head), *([escape(cell) for cell in row] for row in table.rows)]
        parts += [f"## {table.title}", escape(table.note), "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _page(name: str, manifest: Manifest, comparison: Comparison, tables: list[Table]) -> str:
    environment = Environment(loader=TEMPLATES, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    facts = {"name": name, "about": _about(manifest), "tables": tables, "figures": _figures(comparison)}
    return environment.get_template("decide.html.j2").render(facts)


def _figures(comparison: Comparison) -> list[tuple[str, Markup]]:
    """Caption and drawing of each plot."""
    points = []
    for policy in comparison.policies:
        reward, rows = comparison.reward(policy), comparison.rows(policy).values()
        if reward:
            spent = sum(row.spend.forward_tokens for row in rows) / len(rows)
            points.append(Point(policy, spent, reward.mean, COLOURS.get(policy, "")))
    policies = [policy for policy in comparison.policies if policy != ORACLE]
    shares = [_bar(policy, cost.share) for policy in policies if (cost := comparison.cost(policy))]
    regrets = [_bar(policy, comparison.regret(policy)) for policy in policies]
    found = [
        ("Reward against cost: means over all tasks and seeds.", scatter(points, "forward tokens", "test reward")),
        ("What it took to reach the target.", bar_chart(shares, "share of the group's largest total", "{:.2g}".format)),
    ]
    if any(math.isfinite(bar.value) for bar in regrets):
        caption = "Regret: the oracle's reward less the policy's."
        found.append((caption, bar_chart(regrets, "test reward", "{:.2g}".format)))
    for task in comparison.tasks:
        bars = [_bar(policy, comparison.reward(policy, task)) for policy in comparison.policies]
        caption = f"Joint reward on the sealed test rows of {task}; bars are 95 % intervals."
        found.append((caption, interval_chart(bars)))
    return found


def _bar(label: str, estimate: Estimate | None) -> Bar:
    return Bar(label, *(estimate[:3] if estimate else (math.nan, math.nan, math.nan)))
