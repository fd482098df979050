"""docs/benchmarks.md: claims, tables and plots of what one or two devices measured."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from bench.cost.laps import read
from bench.cost.page import claims, plots, tables
from bench.cost.page.figures import Measured, by_cell
from bench.cost.records import Machine

ABOUT = """\
# What it costs

Ours beside what people would otherwise run, on the same token ids of the [valley
task](../tasks/valley/task.yaml). The contenders take turns (A B A B), each in a process of its own, each
measurement on a model loaded anew; figures are those of the best lap, since whatever else the machine does only adds
to them; `÷` says how many times faster ours is, best lap against best lap, and in brackets the two ends of lap
against lap. Every contender trains the same LoRA (rank 16, all linear layers, the
same first weights, AdamW, no dropout) on completions only, all rows in one step; the first step warms up and is
not counted. `tok/s` counts what the plain way runs, padding left out. A cell that would have taken a contender
too long is left out, with the time it was predicted to take. This page is generated."""

ABSENT = """\
Not in the tables: LLaMA-Factory (0.9.5 wants transformers ≤ 5.6 and peft ≤ 0.18.1) and vLLM (0.33 wants
transformers < 5.21 and another torch) do not install beside the versions pinned here.

TRL 1.16 on a CPU: its loss multiplies every position, prompt and padding included, with the whole vocabulary
three times over (forward, again in backward, the gradient), and takes entropy and accuracy of them all; no
setting turns that off. On CUDA it looks at completion tokens only. A subclass that puts transformers' own loss
in its place trains at the pace of the plain loop: the plain column is what TRL could reach."""


def write(folders: Sequence[Path], docs: Path) -> Path:
    """The page over these folders of measurements; its plots stand in `docs`/benchmarks, where matplotlib is there."""
    (docs / "benchmarks").mkdir(parents=True, exist_ok=True)
    page = docs / "benchmarks.md"
    page.write_text("\n\n".join([ABOUT, *(_section(folder, docs) for folder in folders), ABSENT]) + "\n")
    return page


def _section(folder: Path, docs: Path) -> str:
    machine = Machine.model_validate_json((folder / "machine.json").read_text())
    cells = by_cell(read(folder / "lines.jsonl"))
    parts = [
        f"## {machine.device}",
        _machine(machine),
        claims.in_short(cells),
        "### Wanted and measured",
        claims.claim_table(claims.claims(cells)),
    ]
    return "\n\n".join([*parts, *_training(cells, machine, docs), *_answers(cells, machine, docs), *_overheads(folder)])


def _machine(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{machine.model} in {machine.dtype} on {machine.device}; {machine.processor}, {machine.cores} threads, "
        f"{machine.memory / (1 << 30):.0f} GiB; {versions}; commit {machine.commit}, {machine.date}; "
        f"`{machine.command}`."
    )


def _training(cells: Sequence[Measured], machine: Machine, docs: Path) -> list[str]:
    floor = (
        "The floor: the FLOPs of a step that runs the shared prefix once (4 for each weight of the frozen body and "
        "token, logits at completion tokens, the adapter's own products, attention) at the measured rate of products. "
        "It is the floor of this way of computing, every layer over every token: a row's last token, and what the "
        "last layer makes of tokens that no score comes from, are counted though nothing uses them:"
    )
    sides = "Loss of the last step (nats per token) and peak memory:"
    parts = ["### Training", tables.training_speed(cells), *_plot("training", cells, machine, docs)]
    return [*parts, sides, tables.training_loss(cells), floor, tables.training_floor(cells, machine.device)]


def _answers(cells: Sequence[Measured], machine: Machine, docs: Path) -> list[str]:
    floor = (
        "The floor: the prompts read once, then for each token of a batch the larger of reading all weights from "
        "memory and multiplying with them:"
    )
    sides = "The same texts as ours, and peak memory:"
    parts = ["### Answers", tables.answer_speed(cells), *_plot("answers", cells, machine, docs)]
    return [*parts, sides, tables.answer_texts(cells), floor, tables.answer_floor(cells)]


def _plot(name: str, cells: Sequence[Measured], machine: Machine, docs: Path) -> list[str]:
    if importlib.util.find_spec("matplotlib") is None:
        return []
    file = f"{name}-{'cpu' if machine.device == 'CPU' else 'cuda'}.svg"
    draw = {"training": plots.plot_training, "answers": plots.plot_answers}[name]
    draw(cells, docs / "benchmarks" / file)
    return [f"![{name} per second](benchmarks/{file})"]


def _overheads(folder: Path) -> list[str]:
    file = folder / "overheads.json"
    if not file.exists():
        return []
    rows = [
        [one["name"], f"{one['value']:.3g} {one['unit']}", str(one["wanted"])] for one in json.loads(file.read_text())
    ]
    return ["### Around them", tables.table(["what", "measured", "wanted"], rows)]
