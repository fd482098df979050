"""What made an adapter: the record of a training, and how it stands beside the weights on disk."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from agent.config.lora import Lora
from agent.records.actions import TrainLora
from agent.records.base import Record, digest
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend


class TrainingJob(Record):
    """All that a trainer is told: which rows, how, within which limits, and where the adapter goes."""

    adapter: str
    rows: tuple[tuple[Prompt, Example], ...] = Field(description="each with the prompt that it is trained under")
    action: TrainLora
    folder: Path = Field(description="where the adapter is saved: its weights, and last `write_training`")
    parent: str | None = Field(description="the adapter whose weights are continued; None: it starts anew")
    seed: int
    rewritten: int = Field(0, description="how many rows ask a train question in other words; only noted")
    token_limit: int | None = Field(None, description="forward tokens; the step that reaches them is the last")
    charged: int = Field(
        0,
        description="forward tokens of this training, by processes that were killed in it, which `token_limit` lacks "
        "already: steps that a checkpoint has are not counted against it a second time",
    )
    deadline: float | None = Field(
        None, description="a reading of this machine's time.monotonic(); the step that passes it is the last"
    )

    @property
    def data(self) -> str:
        """Digest of the rows, with the prompts around them."""
        return digest([[prompt.id, example.id] for prompt, example in self.rows])


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
    read_tokens: int = Field(0, description="of the general rows, which the bare base read before the first step")
    seconds: float = 0.0
    stopped: str | None = None
    retried: str = Field("", description="why it was begun again at half the rate that was asked for, if it was")
    pass_tokens: int | None = Field(None, description="most tokens of a micro-batch")
    checkpointing: bool = False
    processes: int = Field(1, description="that trained together")

    @property
    def spend(self) -> Spend:
        """What the training used up."""
        return Spend(seconds=self.seconds, train_tokens=self.tokens, read_tokens=self.read_tokens)

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
    """Complete an adapter's folder: training.json, and last a file `complete` with the weights' digest."""
    described = training.model_dump() | {"epoch_losses": training.epoch_losses}
    (folder / "training.json").write_text(json.dumps(described, indent=1))
    (folder / "complete").write_text(weights_digest(folder))


def weights_digest(folder: Path) -> str:
    """SHA-256 of an adapter's weights; "" without a file of them."""
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        return ""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_damaged(folder: Path) -> bool:
    """Whether a complete adapter's weights are no longer those that were saved, or its files cannot be read.

    Older versions noted no digest; of theirs, only what cannot be read is known to be damaged.
    """
    try:
        read_training(folder)
        json.loads((folder / "adapter_config.json").read_text())
        digest = (folder / "complete").read_text()
    except (OSError, ValueError):
        return True
    return bool(digest) and digest != weights_digest(folder)


def read_training(folder: Path) -> Training:
    """The training.json of a complete adapter; fields of other versions are ignored."""
    described = json.loads((folder / "training.json").read_text())
    return Training.model_validate({key: value for key, value in described.items() if key in Training.model_fields})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
