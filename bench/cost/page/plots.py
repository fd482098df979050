"""The same as pictures, where matplotlib is installed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cost.page.figures import Measured, answers, training
from bench.cost.page.tables import NAMES
from bench.cost.plan import ANSWERERS, TRAINERS
from bench.cost.records import TrainingCell

COLOURS = {"ours": "C3", "plain": "C0", "trl": "C1", "generate": "C0", "generate_sorted": "C1", "pipeline": "C2"}


def plot_training(cells: Sequence[Measured], file: Path) -> None:
    """Examples per second over the shared tokens: a panel for each batch size."""
    from matplotlib.figure import Figure

    own = training(cells)
    batches = sorted({one.examples for one in own})
    figure = Figure(figsize=(3.6 * len(batches), 3.2), layout="constrained")
    for axes, batch in zip(figure.subplots(1, len(batches), squeeze=False)[0], batches, strict=True):
        _lines(axes, [one for one in own if one.examples == batch], TRAINERS)
        axes.set(title=f"batch {batch}", xlabel="shared tokens", yscale="log")
    figure.axes[0].set_ylabel("examples/s")
    figure.axes[0].legend(frameon=False)
    figure.savefig(file)


def plot_answers(cells: Sequence[Measured], file: Path) -> None:
    """Rows per second: a group of bars for each kind of cell."""
    from matplotlib.figure import Figure

    own = answers(cells)
    figure = Figure(figsize=(1.5 + 1.6 * len(own), 3.2), layout="constrained")
    axes = figure.subplots()
    there = [name for name in ANSWERERS if any(one.seconds(name) for one in own)]
    for place, name in enumerate(there):
        heights = [one.examples / seconds if (seconds := one.seconds(name)) else 0.0 for one in own]
        where = [group + place / (len(there) + 1) for group in range(len(own))]
        axes.bar(where, heights, 1 / (len(there) + 1), label=NAMES[name].replace("`", ""), color=COLOURS[name])
    axes.set_xticks(range(len(own)), [_label(one) for one in own])
    axes.set(ylabel="rows/s", yscale="log")
    axes.legend(frameon=False)
    figure.savefig(file)


def _lines(axes: Any, own: Sequence[Measured], names: Sequence[str]) -> None:
    for name in names:
        points = [(one.prefix, one.examples / seconds) for one in own if (seconds := one.seconds(name))]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", label=NAMES[name], color=COLOURS[name])


def _label(one: Measured) -> str:
    assert not isinstance(one.cell, TrainingCell)
    return f"{one.prefix} shared\n{one.cell.new} new{', adapter' if one.cell.adapter else ''}"
