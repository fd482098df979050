"""Trainings by one, two and three processes that reach a limit: of tokens, of memory, of what is finite."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from agent.config.lora import Lora
from agent.errors import StepFailed
from agent.records.rounds import Spend
from agent.records.training import TrainingJob
from tests.tools.training.forked_ranks import ACTION, ROWS, fork
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.model.loading import load_model
from tools.training.lora import LoraTrainer
from tools.training.ranks import Ranks

WAYS = ("plain", "limited", "starved", "spoiled", "wild")


class Hindered(Backbone):
    """A model that has trouble, as `way` says."""

    way, steps = "plain", 0

    def losses(self, model: torch.nn.Module, rows: Sequence[TokenRow]) -> torch.Tensor:
        if self.way == "starved" and len(rows) > 1:
            raise torch.OutOfMemoryError("out of memory")
        found = super().losses(model, rows)
        return found * float("nan") if self.way == "spoiled" and self.steps == 1 else found

    def count(self, spend: Spend) -> None:
        self.steps += bool(spend.train_tokens)


def trained(way: str, folder: Path, model: Path, ranks: Ranks | None) -> dict[str, object]:
    """What the training's log says, or why nothing was trained."""
    base, tokenizer = load_model(str(model), device="cpu", dtype="float32", progress=lambda *_: None)
    backbone = Hindered(
        base, tokenizer, name="tiny", locate=folder.joinpath, charge=lambda spend: backbone.count(spend)
    )
    if ranks is None or ranks.rank == 0:  # the others have no trouble
        backbone.way = way
    action = ACTION.model_copy(update={"learning_rate": 1e30 if way == "wild" else ACTION.learning_rate})
    job = TrainingJob(
        adapter=way, rows=ROWS, action=action, folder=folder / way, parent=None, seed=3,
        token_limit=900 if way == "limited" else None,
    )  # fmt: skip
    settings = Lora(rank=4, batch_size=3, accumulate=2)
    try:
        log = LoraTrainer(backbone, settings, lambda *_: None, ranks).train(job)
    except StepFailed as error:
        return {"failed": str(error)}
    losses = [step.loss for step in log.steps]
    return {"losses": losses, "tokens": log.tokens, "stopped": log.stopped, "retried": log.retried}


if __name__ == "__main__":
    torch.set_num_threads(1)
    import peft  # noqa: F401

    model, place = map(Path, sys.argv[1:])
    for size in (1, 2, 3):
        folder = place / str(size)

        def all_ways(rank: int, ranks: Ranks | None, folder: Path = folder) -> None:
            found = {way: trained(way, folder, model, ranks) for way in WAYS}
            (folder / f"{rank}.json").write_text(json.dumps(found))

        fork(folder, size, all_ways)
