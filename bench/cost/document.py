"""docs/benchmarks.md: claims, tables and plots of what one or two devices measured."""

import json
from collections.abc import Sequence
from pathlib import Path

from bench.cost import machine, tables
from bench.cost.claims import claims, in_short
from bench.cost.machine import Machine
from bench.cost.plan import ANSWERERS, TRAINERS
from bench.cost.records import AnswerCell, read
from bench.cost.results import CellResults, answers, by_cell, training
from bench.plots import rate_bars, rate_panels, standalone

ABOUT = """\
# What it costs

Ours beside what people would otherwise run, on the same token ids of the [valley
task](../tasks/valley/task.yaml). The contenders take turns (A B A B), each in a process of its own, each
measurement on a model loaded anew; numbers are those of the best lap, since other work on the machine only adds
to them; `÷` says how many times faster ours is, best lap against best lap, and in brackets the two ends of lap
against lap. Every contender trains the same LoRA (rank 16, all linear layers, the
same first weights, AdamW, no dropout) on completions only, all rows in one step; the first step warms up and is
not counted. `tok/s` counts the tokens of the plain loop, without padding. A cell that would have taken a contender
too long is left out, with the time it was predicted to take. This page is generated."""

ABSENT = """\
Not in the tables: LLaMA-Factory (0.9.5 wants transformers ≤ 5.6 and peft ≤ 0.18.1) and vLLM (0.33 wants
transformers < 5.21 and another torch) cannot be installed beside the versions pinned here.

TRL 1.16 on a CPU: its loss multiplies every position, prompt and padding included, with the whole vocabulary
three times (forward, again in backward, the gradient), and computes entropy and accuracy of all of them; no
setting turns that off. On CUDA it uses completion tokens only. A subclass that computes transformers' own loss
instead trains as fast as the plain loop: the plain column is what TRL could reach.

Several prompts at once, such as the proposals of a race, are not in the tables: [LOG.md](LOG.md) has their numbers on
a CPU, and `python -m bench.cost.gpu --tables race` measures them."""


def write(folders: Sequence[Path], docs: Path) -> Path:
    """Write benchmarks.md and its plots over folders of measurements, a section for each.

    Args:
        folders: each with machine.json and lines.jsonl, and overheads.json where those were measured.
        docs: where the page goes; its plots go to `docs`/benchmarks.

    Returns:
        The path of the page.
    """
    (docs / "benchmarks").mkdir(parents=True, exist_ok=True)
    page = docs / "benchmarks.md"
    page.write_text("\n\n".join([ABOUT, *(_section(folder, docs) for folder in folders), ABSENT]) + "\n")
    return page


def _section(folder: Path, docs: Path) -> str:
    here, cells = machine.load(folder), by_cell(read(folder / "lines.jsonl"))
    words = {True: "held", False: "**not held**", None: "–"}
    verdicts = [[claim.wanted, claim.measured, words[claim.held]] for claim in claims(cells)]
    versions = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    parts = [
        f"## {here.device}",
        f"{here.model} in {here.dtype} on {here.device}; {here.processor}, {here.cores} threads, "
        f"{here.memory / (1 << 30):.0f} GiB; {versions}; commit {here.commit}, {here.date}; `{here.command}`.",
        in_short(cells),
        "### Wanted and measured",
        tables.table(["wanted", "measured", ""], verdicts),
    ]
    return "\n\n".join([*parts, *_training(cells, here, docs), *_answers(cells, here, docs), *_overheads(folder)])


def _training(cells: Sequence[CellResults], here: Machine, docs: Path) -> list[str]:
    floor = (
        "The floor: the FLOPs of a step that runs the shared prefix once (4 for each weight of the frozen body and "
        "token, logits at completion tokens, the adapter's own products, attention) at the measured rate of matrix "
        "products. It is the floor of this way of computing, every layer over every token. A row's last token, and the "
        "last layer's output at tokens that give no loss, are counted though nothing uses them:"
    )
    panels = {
        f"batch {batch}": {
            tables.NAMES[name]: [
                (found.prefix, rate) for found in training(cells, batch=batch) if (rate := found.of(name).rate)
            ]
            for name in TRAINERS
        }
        for batch in sorted({found.rows for found in training(cells)})
    }
    plot = _plot("training", standalone(rate_panels(panels, "shared tokens", "examples/s")), here, docs)
    sides = "Loss of the last step (nats per token) and peak memory:"
    parts = ["### Training", tables.training_speed(cells), plot, sides, tables.training_loss(cells)]
    return [*parts, floor, tables.training_floor(cells, here.device)]


def _answers(cells: Sequence[CellResults], here: Machine, docs: Path) -> list[str]:
    floor = (
        "The floor: the prompts read once, then for each token of a batch the larger of two times: reading all weights "
        "from memory, and multiplying with them:"
    )
    groups = {}
    for found in answers(cells):
        assert isinstance(found.cell, AnswerCell)
        title = f"{found.prefix} shared\n{found.cell.new} new{', adapter' if found.cell.adapter else ''}"
        groups[title] = {
            tables.NAMES[name].replace("`", ""): rate for name in ANSWERERS if (rate := found.of(name).rate)
        }
    plot = _plot("answers", standalone(rate_bars(groups, "rows/s")), here, docs)
    sides = "The same texts as ours, and peak memory:"
    parts = ["### Answers", tables.answer_speed(cells), plot, sides, tables.answer_texts(cells)]
    return [*parts, floor, tables.answer_floor(cells)]


def _plot(name: str, drawing: str, here: Machine, docs: Path) -> str:
    file = f"{name}-{'cpu' if here.device == 'CPU' else 'cuda'}.svg"
    (docs / "benchmarks" / file).write_text(drawing)
    return f"![{name} per second](benchmarks/{file})"


def _overheads(folder: Path) -> list[str]:
    file = folder / "overheads.json"
    if not file.exists():
        return []
    rows = [
        [row["name"], f"{row['value']:.3g} {row['unit']}", str(row["wanted"])] for row in json.loads(file.read_text())
    ]
    return ["### Around them", tables.table(["what", "measured", "wanted"], rows)]
