"""Tuning weights: LoRA by peft, loss on the completions only."""

import json
import math
import os
import random
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, Field

from agent.config.task import Lora
from agent.errors import BadInput, StepFailed
from agent.protocols import Progress
from agent.records.actions import TrainLora
from agent.records.base import digest
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.training.lora_config import new_lora, try_settings
from tools.training.memory_budget import room_for
from tools.training.optimizer_steps import OptimizerSteps, StepNumbers

T = TypeVar("T")


class Step(BaseModel):
    """One optimizer step: mean loss in nats per completion token, gradient norm before clipping, epoch from 1."""

    loss: float
    grad_norm: float
    epoch: int


class Training(BaseModel):
    """What made an adapter; stands beside its weights as training.json. Tokens are forward tokens."""

    model: str
    parent: str | None
    data: str = Field(description="digest of the rows, with the prompts around them")
    settings: Lora
    rows: str
    row_count: int
    rewritten: int = Field(0, description="of the rows, those that ask a train question in other words")
    left_out: int
    epochs: int
    learning_rate: float
    rank: int
    seed: int
    steps: list[Step] = []
    tokens: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    pass_tokens: int | None = Field(None, description="most tokens that one forward pass was given")
    checkpointing: bool = False

    @property
    def epoch_losses(self) -> list[float]:
        """Mean step loss of each epoch, nats per token."""
        return [_mean([s.loss for s in self.steps if s.epoch == e]) for e in range(1, self._last_epoch + 1)]

    @property
    def loss_drop(self) -> float | None:
        """Relative fall of the epoch loss from the last epoch but one to the last; None for a single epoch."""
        losses = self.epoch_losses
        return None if len(losses) < 2 else (losses[-2] - losses[-1]) / max(losses[-2], 1e-9)

    @property
    def grad_norm(self) -> float | None:
        """Mean gradient norm of the last epoch."""
        norms = [step.grad_norm for step in self.steps if step.epoch == self._last_epoch]
        return _mean(norms) if norms else None

    @property
    def _last_epoch(self) -> int:
        return self.steps[-1].epoch if self.steps else 0


def train(
    backbone: Backbone,
    adapter: str,
    rows: Sequence[tuple[Prompt, Example]],
    move: TrainLora,
    settings: Lora,
    *,
    folder: Path,
    parent: str | None,
    seed: int,
    rewritten: int = 0,
    token_limit: int | None = None,
    deadline: float | None = None,
    progress: Progress,
) -> Training:
    """Train `adapter` on rows and save it into `folder`; a file `complete` is written last.

    Starts from `parent`'s weights, or from a new LoRA. Every batch holds rows of one prompt, whose shared prefix
    runs once. Ends early, and says so in `stopped`, after the step that reaches `token_limit` (forward tokens) or
    `deadline` (time.monotonic seconds), and after the epoch whose mean loss is below `move.enough`.
    How many rows ask a `rewritten` question is only noted.

    Raises:
        StepFailed: the loss is not finite, or no row is short enough. The adapter is detached and nothing is saved.
        BadInput: peft refuses the settings.
    """
    longest = min(settings.max_tokens, backbone.window)
    token_rows, left_out = _render(backbone, rows, longest)
    log = Training(
        model=backbone.name, parent=parent, data=digest([[prompt.id, example.id] for prompt, example in rows]),
        settings=settings, rows=move.rows, row_count=len(token_rows), rewritten=rewritten, left_out=left_out,
        epochs=move.epochs, learning_rate=move.learning_rate, rank=move.rank, seed=seed,
    )  # fmt: skip
    if not rows:
        raise StepFailed("no train row can be shown in the wanted form; give the style scorer a `show:` template")
    if not token_rows:
        raise StepFailed(
            f"all {left_out} training rows are longer than {longest} tokens (lora.max_tokens, or the model's window)"
        )
    _attach(backbone, adapter, parent, move, settings, seed)
    log.rank = backbone.rank(adapter)
    started = time.monotonic()
    try:
        _fit(backbone, token_rows, move, settings, log, token_limit, deadline, progress)
    except BaseException:  # Ctrl-C too: nothing half-trained stays attached
        backbone.detach(adapter)
        raise
    log.seconds = time.monotonic() - started
    _save(backbone, adapter, log, folder)
    return log


def _save(backbone: Backbone, adapter: str, log: Training, folder: Path) -> None:
    """Written aside and renamed when whole, so that no kill leaves half an adapter under this name."""
    partial = folder.with_name(f"{folder.name}.partial")
    for stale in (partial, folder):
        shutil.rmtree(stale, ignore_errors=True)
    backbone.save(adapter, partial)
    (partial / "training.json").write_text(json.dumps(_describe(log), indent=1))
    (partial / "complete").touch()
    os.replace(partial, folder)


def read_training(folder: Path) -> Training:
    """The training.json of a complete adapter."""
    described = json.loads((folder / "training.json").read_text())
    return Training.model_validate({key: value for key, value in described.items() if key in Training.model_fields})


def _describe(log: Training) -> dict[str, Any]:
    return log.model_dump() | {"epoch_losses": log.epoch_losses}


def _render(
    backbone: Backbone, rows: Sequence[tuple[Prompt, Example]], longest: int
) -> tuple[list[tuple[str, TokenRow]], int]:
    rendered = [(prompt.id, backbone.render.row(prompt, example)) for prompt, example in rows]
    fitting = [(prompt, row) for prompt, row in rendered if len(row) <= longest]
    return fitting, len(rendered) - len(fitting)


def _attach(backbone: Backbone, adapter: str, parent: str | None, move: TrainLora, settings: Lora, seed: int) -> None:
    torch.manual_seed(seed)
    backbone.detach(adapter)
    if parent is not None:
        backbone.attach(adapter, source=parent, trainable=True)
        return
    try:
        new_lora(backbone, adapter, move.rank, settings)
    except BadInput as error:
        try_settings(backbone, settings)  # which raises where the rank is not to blame
        raise StepFailed(f"rank {move.rank} instead of lora.rank {settings.rank} cannot be had: {error}") from error


def _fit(
    backbone: Backbone,
    rows: list[tuple[str, TokenRow]],
    move: TrainLora,
    settings: Lora,
    log: Training,
    token_limit: int | None,
    deadline: float | None,
    progress: Progress,
) -> None:
    steps = [
        (epoch, micro_batches)
        for epoch in range(1, move.epochs + 1)
        for micro_batches in chunks(plan_epoch(rows, settings.batch_size, log.seed + epoch - 1), settings.accumulate)
    ]
    rate = partial(rate_factor, warmup=round(settings.warmup * len(steps)), steps=len(steps))
    backbone.release_decoder()
    room = room_for(backbone.base, settings.checkpointing, backbone.room)
    backbone.base.train()
    optimizer = OptimizerSteps(backbone, settings, room)
    running: list[tuple[int, StepNumbers]] = []  # epochs and numbers of steps that may still be under way

    def record(epoch: int, numbers: StepNumbers) -> None:
        loss, norm = numbers.read()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise StepFailed(f"the loss became {loss} at step {len(log.steps) + 1}; try a lower lora.learning_rate")
        log.steps.append(Step(loss=loss, grad_norm=norm, epoch=epoch))
        progress("training LoRA", len(log.steps), len(steps), f"epoch {epoch}/{move.epochs}, loss {loss:.3f}")

    for number, (epoch, micro_batches) in enumerate(steps, 1):
        numbers = optimizer.run(micro_batches, move.learning_rate * rate(number - 1))
        log.tokens += numbers.tokens
        backbone.charge(Spend(train_tokens=numbers.tokens))
        running.append((epoch, numbers))
        ends_epoch = number == len(steps) or steps[number][0] > epoch
        # A device that runs ahead gets its next step before the numbers of this one are waited for.
        while len(running) > (1 if optimizer.runs_ahead and not ends_epoch else 0):
            record(*running.pop(0))
        learned = _learned(log, move.enough) if ends_epoch else None
        log.stopped = _limit_reached(log.tokens, token_limit, deadline) or learned
        if log.stopped:
            break
    for step in running:
        record(*step)
    optimizer.close()
    log.pass_tokens, log.checkpointing = room.tokens, room.checkpointing


def rate_factor(step: int, warmup: int, steps: int) -> float:
    """Share of the learning rate at a step, from 0: a linear rise over `warmup` steps, then a linear fall.

    Never 0, at the first step neither (transformers' own linear schedule begins there, and wastes it).
    """
    return (step + 1) / (warmup + 1) if step < warmup else (steps - step) / max(1, steps - warmup)


def plan_epoch(rows: Sequence[tuple[str, TokenRow]], size: int, seed: int) -> list[list[TokenRow]]:
    """Every row once, shuffled, in batches of at most `size` rows of one prompt."""
    shuffle = random.Random(seed)
    by_prompt: dict[str, list[TokenRow]] = {}
    for prompt, row in shuffle.sample(list(rows), len(rows)):
        by_prompt.setdefault(prompt, []).append(row)
    batches = [batch for same in by_prompt.values() for batch in chunks(same, size)]
    shuffle.shuffle(batches)
    return batches


def chunks(items: Sequence[T], size: int) -> list[list[T]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _limit_reached(tokens: int, token_limit: int | None, deadline: float | None) -> str | None:
    if token_limit is not None and tokens >= token_limit:
        return "the training-token budget was used up"
    if deadline is not None and time.monotonic() >= deadline:
        return "the time budget was used up"
    return None


def _learned(log: Training, enough: float) -> str | None:
    """More steps over rows that are known by heart cost time and teach nothing."""
    if log.epoch_losses[-1] >= enough or log.steps[-1].epoch == log.epochs:
        return None
    return f"the rows were learned after {log.steps[-1].epoch} of {log.epochs} epochs"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
