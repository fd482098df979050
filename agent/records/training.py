"""What made an adapter: the record of a training, and how it stands beside the weights on disk."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from agent.config.lora import Lora
from agent.records.base import Record
from agent.records.rounds import Spend


class Step(Record):
    """One optimizer step: mean loss in nats per completion token, gradient norm before clipping, epoch from 1."""

    loss: float
    grad_norm: float
    epoch: int


class Training(Record):
    """A training from its rows to its adapter. Tokens are forward tokens."""

    model: str
    parent: str | None
    data: str = Field(description="digest of the rows, with the prompts around them")
    settings: Lora
    rows: str
    row_count: int
    rewritten: int = Field(0, description="of the rows, those that ask a train question in other words")
    general: int = Field(0, description="general rows of an epoch, against forgetting; not among `row_count`")
    left_out: int
    epochs: int
    learning_rate: float
    rank: int
    seed: int
    steps: tuple[Step, ...] = ()
    tokens: int = 0
    read: int = Field(0, description="by the bare base, to predict the general rows; not among `tokens`")
    seconds: float = 0.0
    stopped: str | None = None
    pass_tokens: int | None = Field(None, description="most tokens of a micro-batch")
    checkpointing: bool = False

    @property
    def spend(self) -> Spend:
        """What the training used up."""
        return Spend(seconds=self.seconds, train_tokens=self.tokens, read_tokens=self.read)

    @property
    def epoch_losses(self) -> list[float]:
        """Mean step loss of each epoch, nats per token."""
        return [
            _mean([step.loss for step in self.steps if step.epoch == epoch]) for epoch in range(1, self._last_epoch + 1)
        ]

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
    def grad_drop(self) -> float | None:
        """Relative fall of the mean gradient norm from the first epoch to the last; None for a single epoch."""
        first = [step.grad_norm for step in self.steps if step.epoch == 1]
        if self._last_epoch < 2 or not first or self.grad_norm is None:
            return None
        return 1 - self.grad_norm / max(_mean(first), 1e-9)

    @property
    def _last_epoch(self) -> int:
        return self.steps[-1].epoch if self.steps else 0


def write_training(training: Training, folder: Path) -> None:
    """Complete an adapter's folder: training.json, and last an empty file `complete`."""
    described = training.model_dump() | {"epoch_losses": training.epoch_losses}
    (folder / "training.json").write_text(json.dumps(described, indent=1))
    (folder / "complete").touch()


def read_training(folder: Path) -> Training:
    """The training.json of a complete adapter; fields of other versions are ignored."""
    described = json.loads((folder / "training.json").read_text())
    return Training.model_validate({key: value for key, value in described.items() if key in Training.model_fields})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
