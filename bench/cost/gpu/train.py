"""Training steps beside the plain peft loop and TRL."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from statistics import median

import torch

from bench.cost.contenders import floor, training
from bench.cost.contenders.training import Trainer
from bench.cost.gpu.models import Bench
from bench.cost.inputs import Rows, training_rows
from bench.cost.records import TrainingCell

CELLS = ((80, 16), (512, 16), (1024, 32))  # shared tokens, about, and rows
STEPS = 10
WARM_UP = 3  # steps of a training that are not counted: one as it is, one captured, one more


def training_table(bench: Bench) -> None:
    """Seconds of a step, the least and the median after the warm-up; the floor; the loss after the last step."""
    for prefix, batch in CELLS:
        rows = training_rows(bench.tokenizer, TrainingCell(prefix=prefix, batch=batch, steps=STEPS))
        least = floor.training_floor(bench.loaded(), rows).least_seconds()
        for name, trainer in trainers().items():
            bench.peer(
                f"training by {name}, {rows.shared} / {batch}", partial(_steps, bench, rows, name, trainer, least)
            )


def trainers() -> dict[str, Trainer]:
    """Those that are installed; a printed sentence for the others."""
    found: dict[str, Trainer] = {"ours": training.ours, "plain": training.plain}
    if importlib.util.find_spec("trl") is None:
        print("left out: TRL is not installed (pip install -e '.[bench]')", flush=True)
        return found
    from bench.cost.contenders.trl import trl

    found["trl"] = trl
    if importlib.util.find_spec("liger_kernel") is None:
        print("left out: TRL with Liger; it is not installed (pip install liger-kernel)", flush=True)
    else:
        found["trl and liger"] = partial(trl, liger=True)
    return found


def _steps(bench: Bench, rows: Rows, name: str, trainer: Trainer, least: float) -> None:
    loaded = bench.loaded()
    start = loaded.now()
    steps = trainer(loaded, rows, STEPS)
    laps = [after - before for before, after in pairwise([start, *steps.ends])]
    counted = sorted(laps[WARM_UP:])
    bench.add(
        "training", shared=rows.shared, batch=len(rows.tokens), who=name, best=round(counted[0], 5),
        median=round(median(counted), 5), first=[round(lap, 3) for lap in laps[:WARM_UP]],
        floor=round(least, 5), share_of_floor=round(least / counted[0], 3), loss=round(steps.loss, 4),
    )  # fmt: skip


def losses_agree(bench: Bench) -> None:
    """The loss of the first step, ours beside the plain loop's, relative; in bfloat16 and in fp32."""
    rows = training_rows(bench.tokenizer, TrainingCell(prefix=80, batch=16, steps=2))
    for dtype in (torch.bfloat16, torch.float32):
        losses = []
        for trainer in (training.ours, training.plain):
            loaded = bench.loaded()
            loaded.model.to(dtype=dtype)  # type: ignore[call-arg]
            with first_loss_kept():
                losses.append(trainer(loaded, rows, 2).loss)
        bench.add("losses", dtype=str(dtype), ours=losses[0], plain=losses[1], off=abs(losses[0] / losses[1] - 1))


@contextmanager
def first_loss_kept() -> Iterator[None]:
    """A step changes next to nothing, so that the last loss is the first."""
    before = training.SETTINGS
    training.SETTINGS = before.model_copy(update={"learning_rate": 1e-6, "weight_decay": 0.0})
    try:
        yield
    finally:
        training.SETTINGS = before
