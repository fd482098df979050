"""What was wanted, what was measured, and whether it held."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.cost.results import CellResults, answers, training

TRL_TIMES, GENERATE_TIMES, FLOOR_SHARE, LOSS_APART = 5.0, 4.0, 0.6, 1e-3


class Claim(NamedTuple):
    """`held` is None where nothing was measured."""

    wanted: str
    measured: str = "not measured"
    held: bool | None = None


ELSEWHERE = (
    Claim("the demo in at most 3 minutes on 2 cores, its result unchanged", "by `make demo`, not here"),
    Claim("final rewards unchanged over 3 seeds", "by `nesylora compare --seeds 0 1 2`, not here"),
)


def claims(cells: Sequence[CellResults]) -> list[Claim]:
    """A line for each thing wanted. What stands around the model is judged in a table of its own."""
    here = [_beside_trl(cells), _growing(cells), _no_prefix(cells), _near_floor(cells), _losses(cells), _answers(cells)]
    return [*here, *ELSEWHERE]


def in_short(cells: Sequence[CellResults]) -> str:
    """The two results that people ask about first, in sentences; empty where they were not measured."""
    sentences = []
    for found in training(cells, 80, 8):
        if (plain := found.of("plain").speedup) and (trl := found.of("trl").speedup):
            sentences.append(
                f"In short: a training step over eight rows that share {found.prefix} tokens is {plain.best:.1f} times "
                f"as fast as a plain peft loop's and {trl.best:.1f} times as fast as TRL's."
            )
    for found in answers(cells):
        if found.cell.prefix == 256 and (speedup := found.of("generate").speedup):
            shared = f"{found.rows} answers after {found.prefix} shared tokens"
            sentences.append(f"{shared} come {speedup.best:.1f} times as fast.")
            break
    return " ".join(sentences)


def _beside_trl(cells: Sequence[CellResults]) -> Claim:
    wanted = "training, prefix 80, batch 8: at least 5 × TRL's examples/s"
    for found in training(cells, 80, 8):
        if speedup := found.of("trl").speedup:
            measured = f"{speedup}; the plain loop's: {found.of('plain').speedup or 'not measured'}"
            return Claim(wanted, measured, speedup.best >= TRL_TIMES)
    return Claim(wanted)


def _growing(cells: Sequence[CellResults]) -> Claim:
    wanted = "that ratio grows with the prefix (batch 8)"
    known = [(found.prefix, speedup.best) for found in training(cells, batch=8) if (speedup := found.of("trl").speedup)]
    if len(known) < 2:
        return Claim(wanted)
    speedups = [speedup for _, speedup in known]
    measured = ", ".join(f"{speedup:.2f} × at {prefix}" for prefix, speedup in known)
    return Claim(wanted, measured, speedups == sorted(speedups))


def _no_prefix(cells: Sequence[CellResults]) -> Claim:
    wanted = "training without a prefix: never slower than the plain loop"
    known = [(found.rows, speedup) for found in training(cells, prefix=0) if (speedup := found.of("plain").speedup)]
    if not known:
        return Claim(wanted)
    measured = ", ".join(f"{speedup} at batch {batch}" for batch, speedup in known)
    return Claim(wanted, measured, all(speedup.best >= 1 for _, speedup in known))


def _near_floor(cells: Sequence[CellResults]) -> Claim:
    wanted = "training, prefix 80, batch 8: at least 60 % of the measured GEMM floor, at the best square's rate"
    for found in training(cells, 80, 8):
        if found.share_of_floor is not None and found.floor:
            best = found.share_of_floor * found.floor.shaped / found.floor.square
            measured = f"{found.share_of_floor:.0%} at the step's shapes, {best:.0%} at the best square"
            return Claim(wanted, measured, best >= FLOOR_SHARE)
    return Claim(wanted)


def _losses(cells: Sequence[CellResults]) -> Claim:
    wanted = "the last step's loss is the plain loop's, in every cell"
    pairs = [(found.of("ours").loss, found.of("plain").loss) for found in training(cells)]
    apart = [abs(ours - plain) / plain for ours, plain in pairs if ours is not None and plain is not None]
    if not apart:
        return Claim(wanted)
    return Claim(wanted, f"apart by at most {max(apart):.1e} of it, in {len(apart)} cells", max(apart) <= LOSS_APART)


def _answers(cells: Sequence[CellResults]) -> Claim:
    wanted = "answers, prefix 256, 64 rows: at least 4 × batched `generate`, same text"
    for found in answers(cells):
        speedup, same = found.of("generate").speedup, found.of("generate").same_texts
        if found.cell.prefix == 256 and found.rows == 64 and speedup:
            held = speedup.best >= GENERATE_TIMES and same == found.rows
            return Claim(wanted, f"{speedup}, {same} of {found.rows} the same", held)
    return Claim(wanted)
