"""The measurements as Markdown tables."""

from collections.abc import Sequence

from bench.cost.page.figures import OURS, Measured, answers, training
from bench.cost.plan import ANSWERERS, TRAINERS
from bench.cost.records import AnswerCell, Answered, TrainingCell

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


def training_speed(cells: Sequence[Measured]) -> str:
    """Examples and useful tokens per second, and how many times faster ours is."""
    there = _there(cells, TRAINERS)
    head = ["shared tokens", "batch", *(NAMES[one] for one in there), *(f"÷ {NAMES[one]}" for one in there[1:])]
    rows = [[*_place(one), *(_speed(one, name) for name in there), *_ratios(one, there)] for one in training(cells)]
    return table(head, rows)


def training_loss(cells: Sequence[Measured]) -> str:
    """Loss of the last step and peak memory, side by side."""
    there = _there(cells, TRAINERS)
    head = [
        "shared tokens",
        "batch",
        *(f"loss, {NAMES[one]}" for one in there),
        *(f"MiB, {NAMES[one]}" for one in there),
    ]
    rows = [
        [*_place(one), *(_number(one.loss(name), ".5f") for name in there), *(_memory(one, name) for name in there)]
        for one in training(cells)
    ]
    return table(head, rows)


def training_floor(cells: Sequence[Measured], device: str) -> str:
    """The least time of our step at the measured rates, and our share of it."""
    peak = next((flops for name, flops in PEAKS.items() if name in device), None)
    head = [
        "shared tokens",
        "batch",
        "GFLOP a step",
        "GFLOP/s, its shapes",
        "GFLOP/s, best square",
        "least s",
        "ours s",
    ]
    head += ["share of the floor", "of the best square", *(["MFU"] if peak else [])]
    return table(head, [[*_place(one), *_floor(one, peak)] for one in training(cells) if one.floor and one.least])


def answer_speed(cells: Sequence[Measured]) -> str:
    """Rows per second, and how many times faster ours is."""
    there = _there(cells, ANSWERERS)
    head = [*ANSWER_HEAD, *(NAMES[one] for one in there), *(f"÷ {NAMES[one]}" for one in there[1:])]
    rows = [[*_kind(one), *(_speed(one, name) for name in there), *_ratios(one, there)] for one in answers(cells)]
    return table(head, rows)


def answer_texts(cells: Sequence[Measured]) -> str:
    """How many texts are the same as ours; peak memory; our share of the floor."""
    there = _there(cells, ANSWERERS)
    head = [*ANSWER_HEAD, *(f"same text, {NAMES[one]}" for one in there[1:]), *(f"MiB, {NAMES[one]}" for one in there)]
    rows = [
        [*_kind(one), *(_same(one, name) for name in there[1:]), *(_memory(one, name) for name in there)]
        for one in answers(cells)
    ]
    return table(head, rows)


def answer_floor(cells: Sequence[Measured]) -> str:
    """The least time of our answers at the measured rates, and our share of it."""
    head = [*ANSWER_HEAD, "mean tokens", "GFLOP/s, prompts", "GFLOP/s, a decoding step", "GB/s", "least s", "ours s"]
    rows = [[*_kind(one), *_answer_floor(one)] for one in answers(cells) if one.floor and one.least]
    return table([*head, "share of the floor"], rows)


ANSWER_HEAD = ["shared tokens", "rows", "most new tokens", "adapter"]


def _place(one: Measured) -> list[str]:
    assert isinstance(one.cell, TrainingCell)
    return [str(one.prefix), str(one.cell.batch)]


def _kind(one: Measured) -> list[str]:
    assert isinstance(one.cell, AnswerCell)
    return [str(one.prefix), str(one.cell.rows), str(one.cell.new), "yes" if one.cell.adapter else "no"]


def _there(cells: Sequence[Measured], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(line.contender == name for one in cells for line in one.lines)]


def _speed(one: Measured, contender: str) -> str:
    seconds, runs = one.seconds(contender), one.runs(contender)
    if seconds is None:
        return f"– ({one.why_not(contender)})" if one.why_not(contender) else "–"
    rate = f"{one.examples / seconds:.3g} rows/s"
    return rate if isinstance(runs[0], Answered) else f"{rate}, {runs[0].tokens / seconds:.3g} tok/s"


def _ratios(one: Measured, names: Sequence[str]) -> list[str]:
    return [str(one.ratio(name) or "–") for name in names if name != OURS]


def _memory(one: Measured, contender: str) -> str:
    return _number(one.value(contender, lambda run: run.memory / MIB), ",.0f")


def _same(one: Measured, peer: str) -> str:
    same = one.same_texts(peer)
    return "–" if same is None else f"{same} of {one.examples}"


def _floor(one: Measured, peak: float | None) -> list[str]:
    floor, seconds, least = one.floor, one.seconds(OURS), one.least
    assert floor and seconds and least
    rates = [f"{floor.flops / GIGA:,.3g}", f"{floor.shaped / GIGA:,.0f}", f"{floor.square / GIGA:,.0f}"]
    shares = [f"{least / seconds:.0%}", f"{floor.flops / floor.square / seconds:.0%}"]
    used = [f"{floor.flops / seconds / peak:.1%}"] if peak else []
    return [*rates, f"{least:.3g}", f"{seconds:.3g}", *shares, *used]


def _answer_floor(one: Measured) -> list[str]:
    floor, seconds, least, run = one.floor, one.seconds(OURS), one.least, one.of(OURS, Answered)[0]
    assert floor and seconds and least
    rates = [f"{value / GIGA:,.0f}" for value in (floor.shaped, floor.step_shaped, floor.bandwidth)]
    mean = sum(run.generated) / len(run.generated)
    return [f"{mean:.1f}", *rates, f"{least:.3g}", f"{seconds:.3g}", f"{least / seconds:.0%}"]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
