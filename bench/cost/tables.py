"""The measurements as Markdown tables."""

from collections.abc import Sequence

from bench.cost.plan import ANSWERERS, TRAINERS
from bench.cost.records import AnswerCell, TrainingCell
from bench.cost.results import OURS, CellResults, answers, training

NAMES = {
    "ours": "ours", "plain": "plain peft loop", "trl": "TRL SFTTrainer", "generate": "`generate`",
    "generate_sorted": "`generate`, sorted, merged", "pipeline": "`pipeline`",
}  # fmt: skip
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # dense bf16 FLOP/s, NVIDIA's data sheets
MIB, GIGA = 1 << 20, 1e9


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def training_speed(cells: Sequence[CellResults]) -> str:
    """Examples and useful tokens per second, and how many times faster ours is."""
    names = _measured(cells, TRAINERS)
    head = [*TRAINING_HEAD, *(NAMES[name] for name in names), *(f"÷ {NAMES[name]}" for name in names[1:])]
    rows = [
        [*_training_key(found), *(_speed(found, name) for name in names), *_speedups(found, names)]
        for found in training(cells)
    ]
    return table(head, rows)


def training_loss(cells: Sequence[CellResults]) -> str:
    """Loss of the last step and peak memory, side by side."""
    names = _measured(cells, TRAINERS)
    head = [*TRAINING_HEAD, *(f"loss, {NAMES[name]}" for name in names), *(f"MiB, {NAMES[name]}" for name in names)]
    rows = []
    for found in training(cells):
        losses = [_number(found.of(name).loss, ".5f") for name in names]
        rows.append([*_training_key(found), *losses, *(_memory(found, name) for name in names)])
    return table(head, rows)


def training_floor(cells: Sequence[CellResults], device: str) -> str:
    """The least time of our step at the measured rates, and our share of it."""
    peak = next((flops for name, flops in PEAKS.items() if name in device), None)
    head = [*TRAINING_HEAD, "GFLOP a step", "GFLOP/s, its shapes", "GFLOP/s, best square", "least s", "ours s"]
    head += ["share of the floor", "of the best square", *(["MFU"] if peak else [])]
    rows = []
    for found in training(cells):
        floor, seconds, least = found.floor, found.of(OURS).seconds, found.least_seconds
        if floor and seconds and least:
            rates = [f"{floor.flops / GIGA:,.3g}", f"{floor.shaped / GIGA:,.0f}", f"{floor.square / GIGA:,.0f}"]
            shares = [f"{least / seconds:.0%}", f"{floor.flops / floor.square / seconds:.0%}"]
            used = [f"{floor.flops / seconds / peak:.1%}"] if peak else []
            rows.append([*_training_key(found), *rates, f"{least:.3g}", f"{seconds:.3g}", *shares, *used])
    return table(head, rows)


def answer_speed(cells: Sequence[CellResults]) -> str:
    """Rows per second, and how many times faster ours is."""
    names = _measured(cells, ANSWERERS)
    head = [*ANSWER_HEAD, *(NAMES[name] for name in names), *(f"÷ {NAMES[name]}" for name in names[1:])]
    rows = [
        [*_answer_key(found), *(_speed(found, name) for name in names), *_speedups(found, names)]
        for found in answers(cells)
    ]
    return table(head, rows)


def answer_texts(cells: Sequence[CellResults]) -> str:
    """How many texts are the same as ours, and peak memory."""
    names = _measured(cells, ANSWERERS)
    head = [*ANSWER_HEAD, *(f"same text, {NAMES[name]}" for name in names[1:])]
    rows = []
    for found in answers(cells):
        same = [found.of(name).same_texts for name in names[1:]]
        shares = ["–" if count is None else f"{count} of {found.rows}" for count in same]
        rows.append([*_answer_key(found), *shares, *(_memory(found, name) for name in names)])
    return table([*head, *(f"MiB, {NAMES[name]}" for name in names)], rows)


def answer_floor(cells: Sequence[CellResults]) -> str:
    """The least time of our answers at the measured rates, and our share of it."""
    head = [*ANSWER_HEAD, "mean tokens", "GFLOP/s, prompts", "GFLOP/s, a decoding step", "GB/s", "least s", "ours s"]
    rows = []
    for found in answers(cells):
        floor, seconds, least = found.floor, found.of(OURS).seconds, found.least_seconds
        if floor and seconds and least and found.mean_generated is not None:
            rates = [f"{value / GIGA:,.0f}" for value in (floor.shaped, floor.step_shaped, floor.bandwidth)]
            times = [f"{least:.3g}", f"{seconds:.3g}", f"{least / seconds:.0%}"]
            rows.append([*_answer_key(found), f"{found.mean_generated:.1f}", *rates, *times])
    return table([*head, "share of the floor"], rows)


TRAINING_HEAD = ["shared tokens", "batch"]
ANSWER_HEAD = ["shared tokens", "rows", "most new tokens", "adapter"]


def _training_key(found: CellResults) -> list[str]:
    assert isinstance(found.cell, TrainingCell)
    return [str(found.prefix), str(found.cell.batch)]


def _answer_key(found: CellResults) -> list[str]:
    assert isinstance(found.cell, AnswerCell)
    return [str(found.prefix), str(found.cell.rows), str(found.cell.new), "yes" if found.cell.adapter else "no"]


def _measured(cells: Sequence[CellResults], names: Sequence[str]) -> list[str]:
    """Of these contenders, those that have a line."""
    return [name for name in names if any(name in found.contenders for found in cells)]


def _speed(found: CellResults, contender: str) -> str:
    results = found.of(contender)
    if results.rate is None:
        return f"– ({results.why_left_out})" if results.why_left_out else "–"
    useful = f", {results.tokens_per_second:.3g} tok/s" if results.tokens_per_second is not None else ""
    return f"{results.rate:.3g} rows/s{useful}"


def _speedups(found: CellResults, names: Sequence[str]) -> list[str]:
    return [str(found.of(name).speedup or "–") for name in names if name != OURS]


def _memory(found: CellResults, contender: str) -> str:
    memory = found.of(contender).memory
    return "–" if memory is None else f"{memory / MIB:,.0f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
