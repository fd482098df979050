"""What was wanted, what was measured, and whether it held."""

from collections.abc import Sequence

from agent.records.base import Record
from bench.cost.page.figures import Measured, answers, training
from bench.cost.page.tables import table
from bench.cost.records import AnswerCell, TrainingCell

TRL_TIMES, GENERATE_TIMES, FLOOR_SHARE, LOSS_APART = 5.0, 4.0, 0.6, 1e-3


class Claim(Record):
    """`held` is None where nothing was measured."""

    wanted: str
    measured: str = "not measured"
    held: bool | None = None


ELSEWHERE = (
    Claim(wanted="the demo in at most 3 minutes on 2 cores, its result unchanged", measured="by `make demo`, not here"),
    Claim(wanted="final rewards unchanged over 3 seeds", measured="by `nesylora compare --seeds 0 1 2`, not here"),
)


def claims(cells: Sequence[Measured]) -> list[Claim]:
    """A line for each thing wanted. What stands around them is judged in a table of its own."""
    here = [_beside_trl(cells), _growing(cells), _no_prefix(cells), _near_floor(cells), _losses(cells), _answers(cells)]
    return [*here, *ELSEWHERE]


def in_short(cells: Sequence[Measured]) -> str:
    """The outcome in two sentences, of the cells that people ask about first; empty where they were not measured."""
    told = []
    for one in _training(cells, 80, 8):
        if (plain := one.ratio("plain")) and (trl := one.ratio("trl")):
            told.append(
                f"In short: a training step over eight rows that share {one.prefix} tokens is {plain.best:.1f} times "
                f"as fast as a plain peft loop's and {trl.best:.1f} times as fast as TRL's."
            )
    for one in answers(cells):
        if isinstance(one.cell, AnswerCell) and one.cell.prefix == 256 and (ratio := one.ratio("generate")):
            told.append(f"{one.examples} answers after {one.prefix} shared tokens come {ratio.best:.1f} times as fast.")
            break
    return " ".join(told)


def claim_table(claims: Sequence[Claim]) -> str:
    """As Markdown."""
    words = {True: "held", False: "**not held**", None: "–"}
    return table(["wanted", "measured", ""], [[one.wanted, one.measured, words[one.held]] for one in claims])


def _beside_trl(cells: Sequence[Measured]) -> Claim:
    wanted = "training, prefix 80, batch 8: at least 5 × TRL's examples/s"
    for one in _training(cells, 80, 8):
        if ratio := one.ratio("trl"):
            told = f"{ratio}; the plain loop's: {one.ratio('plain') or 'not measured'}"
            return Claim(wanted=wanted, measured=told, held=ratio.best >= TRL_TIMES)
    return Claim(wanted=wanted)


def _growing(cells: Sequence[Measured]) -> Claim:
    wanted = "that ratio grows with the prefix (batch 8)"
    found = [(one.prefix, ratio.best) for one in _training(cells, None, 8) if (ratio := one.ratio("trl"))]
    if len(found) < 2:
        return Claim(wanted=wanted)
    told = ", ".join(f"{ratio:.2f} × at {prefix}" for prefix, ratio in found)
    ratios = [ratio for _, ratio in found]
    return Claim(wanted=wanted, measured=told, held=ratios == sorted(ratios))


def _no_prefix(cells: Sequence[Measured]) -> Claim:
    wanted = "training without a prefix: never slower than the plain loop"
    found = [(one.examples, ratio) for one in _training(cells, 0) if (ratio := one.ratio("plain"))]
    if not found:
        return Claim(wanted=wanted)
    told = ", ".join(f"{ratio} at batch {batch}" for batch, ratio in found)
    return Claim(wanted=wanted, measured=told, held=all(ratio.best >= 1 for _, ratio in found))


def _near_floor(cells: Sequence[Measured]) -> Claim:
    wanted = "training, prefix 80, batch 8: at least 60 % of the measured GEMM floor, at the best square's rate"
    for one in _training(cells, 80, 8):
        if one.share is not None and one.floor:
            best = one.share * one.floor.shaped / one.floor.square
            told = f"{one.share:.0%} at the step's shapes, {best:.0%} at the best square"
            return Claim(wanted=wanted, measured=told, held=best >= FLOOR_SHARE)
    return Claim(wanted=wanted)


def _losses(cells: Sequence[Measured]) -> Claim:
    wanted = "the last step's loss is the plain loop's, in every cell"
    pairs = [(one.loss("ours"), one.loss("plain")) for one in training(cells)]
    apart = [abs(ours - plain) / plain for ours, plain in pairs if ours is not None and plain is not None]
    if not apart:
        return Claim(wanted=wanted)
    told = f"apart by at most {max(apart):.1e} of it, in {len(apart)} cells"
    return Claim(wanted=wanted, measured=told, held=max(apart) <= LOSS_APART)


def _answers(cells: Sequence[Measured]) -> Claim:
    wanted = "answers, prefix 256, 64 rows: at least 4 × batched `generate`, same text"
    for one in answers(cells):
        ratio, same = one.ratio("generate"), one.same_texts("generate")
        if isinstance(one.cell, AnswerCell) and one.cell.prefix == 256 and one.examples == 64 and ratio:
            held = ratio.best >= GENERATE_TIMES and same == one.examples
            return Claim(wanted=wanted, measured=f"{ratio}, {same} of {one.examples} the same", held=held)
    return Claim(wanted=wanted)


def _training(cells: Sequence[Measured], prefix: int | None, batch: int | None = None) -> list[Measured]:
    return [
        one
        for one in training(cells)
        if isinstance(one.cell, TrainingCell) and prefix in (None, one.cell.prefix) and batch in (None, one.cell.batch)
    ]
