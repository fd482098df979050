"""Contenders at training: ours, and the loop that people write with peft."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from peft import get_peft_model

from agent.config.lora import Lora
from agent.records.actions import TrainLora
from agent.records.training import TrainingJob
from bench.cost.inputs import Loaded, Rows
from tools.model.backbone import Backbone
from tools.training.lora import LoraTrainer
from tools.training.lora_config import lora_config

SEED = 0
SETTINGS = Lora(max_tokens=100_000)


@dataclass(frozen=True)
class Steps:
    """When each step ended, and the loss that the last one began with, in nats per token."""

    ends: list[float]
    loss: float


Trainer = Callable[[Loaded, Rows, int], Steps]
"""Trains on rows for so many steps."""


def ours(loaded: Loaded, rows: Rows, steps: int) -> Steps:
    """LoraTrainer: each epoch is one step over all rows."""
    ends: list[float] = []

    def progress(what: str, done: int, total: int, note: str = "") -> None:
        if done > len(ends):
            ends.append(loaded.now())

    with tempfile.TemporaryDirectory() as folder:
        backbone = Backbone(loaded.model, loaded.tokenizer, name="bench", locate=Path(folder).joinpath)
        settings = SETTINGS.model_copy(update={"batch_size": len(rows.examples)})
        action = TrainLora(
            epochs=steps, learning_rate=SETTINGS.learning_rate, rank=SETTINGS.rank,
            enough=0,  # all steps, however low the loss
        )  # fmt: skip
        job = TrainingJob(
            adapter="bench", rows=tuple((rows.prompt, example) for example in rows.examples), action=action,
            folder=Path(folder, "bench"), parent=None, seed=SEED,
        )  # fmt: skip
        training = LoraTrainer(backbone, settings, progress).train(job)
    return Steps(ends, training.steps[-1].loss)


def plain(loaded: Loaded, rows: Rows, steps: int) -> Steps:
    """The loop that people write with peft: a padded batch [B, T], labels on completions, the model's own loss."""
    torch.manual_seed(SEED)
    model = get_peft_model(loaded.model, lora_config(SETTINGS.rank, SETTINGS))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=SETTINGS.learning_rate, weight_decay=SETTINGS.weight_decay)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, warmup(steps), steps)
    ends = []
    for _ in range(steps):
        loss = model(**padded(loaded, rows), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, SETTINGS.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ends.append(loaded.now())
    return Steps(ends, loss.item())


def padded(loaded: Loaded, rows: Rows) -> dict[str, torch.Tensor]:
    """Ids, mask and labels of all rows as [B, T] on the model's device, padded on the right; label −100 has no loss."""
    longest = max(map(len, rows.tokens))
    ids = torch.zeros(len(rows.tokens), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for number, row in enumerate(rows.tokens):
        ids[number, : len(row)] = torch.tensor(row.prompt + row.completion)
        mask[number, : len(row)] = 1
        labels[number, len(row.prompt) : len(row)] = torch.tensor(row.completion)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(loaded.model.device) for name, tensor in batch.items()}


def warmup(steps: int) -> int:
    """Steps over which the learning rate rises, as in tools.training.lora."""
    return round(SETTINGS.warmup * steps)
