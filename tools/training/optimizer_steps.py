"""Optimizer steps: gradient, clipping, AdamW. On CUDA a step is only started, and its numbers are read later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from agent.config.lora import Lora
from tools.memory_budget import MemoryBudget
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.training.captured_passes import CannotCapture, CapturedPasses
from tools.training.flat_adamw import FlatAdamW
from tools.training.general import NO_GENERAL_ROWS, GeneralBatch
from tools.training.gradient import compute_gradient
from tools.training.ranks import Ranks

DEVICES = ("cuda",)  # where a step is started and not waited for


@dataclass(frozen=True)
class StepNumbers:
    """What an optimizer step gave.

    Attributes:
        tokens: forward tokens of the step, where each batch is one pass: how many processes share it, and into how many
            passes it has to be cut for want of memory, changes neither the count nor what is compared with a limit.
    """

    tokens: int
    _numbers: torch.Tensor  # loss and gradient norm, on the host once the event has come
    _ready: "torch.cuda.Event | None"

    @classmethod
    def of(cls, loss: torch.Tensor | float, norm: torch.Tensor | float, tokens: int) -> "StepNumbers":
        """Numbers on a CUDA device begin their way to the host."""
        if not isinstance(norm, torch.Tensor) or not norm.is_cuda:
            return cls(tokens, torch.tensor([float(loss), float(norm)], dtype=torch.float64), None)
        both = torch.stack([torch.as_tensor(loss, device=norm.device, dtype=norm.dtype), norm])
        numbers = torch.empty(2, dtype=both.dtype, pin_memory=True).copy_(both, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return cls(tokens, numbers, ready)

    def read(self) -> tuple[float, float]:
        """Loss in nats per completion token, and gradient norm before clipping. Waits for this step only."""
        if self._ready is not None:
            self._ready.synchronize()
        loss, norm = self._numbers.tolist()
        return loss, norm


class OptimizerSteps:
    """Trains the weights that are trainable.

    Args:
        budget: of a micro-batch; it shrinks where memory runs out.
        ranks: the processes that do each step together; None: this one alone.
    """

    def __init__(self, backbone: Backbone, settings: Lora, budget: MemoryBudget, ranks: Ranks | None = None) -> None:
        self._backbone, self._settings, self._budget, self._ranks = backbone, settings, budget, ranks
        self._together = ranks if backbone.sharded else None
        self._parameters = [weight for weight in backbone.model.parameters() if weight.requires_grad]
        if ranks:
            ranks.begin(self._parameters)
        self._flat: FlatAdamW | None = None
        self._captured: CapturedPasses | None = None
        kinds = {(weight.dtype, weight.device) for weight in self._parameters}
        if backbone.device.type in DEVICES and len(kinds) == 1:
            self._flat = FlatAdamW(self._parameters, settings.weight_decay, settings.clip)
            self._adamw = self._flat.optimizer
            if backbone.packs and not budget.checkpointing and not backbone.sharded:
                self._captured = CapturedPasses(backbone, budget)
        else:
            self._adamw = torch.optim.AdamW(self._parameters, weight_decay=settings.weight_decay)

    @property
    def runs_ahead(self) -> bool:
        """Whether a step may still be under way when it returns, so that reading its numbers waits for it."""
        return self._flat is not None

    def run(
        self, batches: Sequence[Sequence[TokenRow]], learning_rate: float, general: GeneralBatch = NO_GENERAL_ROWS
    ) -> StepNumbers:
        """One step over batches of rows, each of one prompt, and over general rows, whose loss is not reported.

        Raises:
            StepFailed: memory does not hold even one row.
        """
        weight, tokens = 1.0, sum(map(self._backbone.cost, [*batches, general.rows]))
        if self._ranks:
            batches, general, weight = self._ranks.share(self._backbone, batches, general)
        if self._flat is None:
            loss = compute_gradient(self._backbone, batches, self._budget, general, weight, self._together)
            if self._ranks:
                loss = self._added_up(self._ranks, loss)
            norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.clip))
            for group in self._adamw.param_groups:
                group["lr"] = learning_rate
            self._adamw.step()
            self._adamw.zero_grad()
            return StepNumbers.of(loss, norm, tokens)
        loss_sum = self._flat_gradient(self._flat, batches, general, weight)
        if self._ranks:
            self._ranks.add_up(self._flat.gradient)
            loss_sum = torch.as_tensor(loss_sum, device=self._backbone.device, dtype=torch.float32)
            self._ranks.add_up(loss_sum)
        return StepNumbers.of(loss_sum, self._flat.step(learning_rate), tokens)

    def state(self) -> dict[str, torch.Tensor]:
        """Weights, AdamW's state, and where random draws (dropout's) are in each process: copies in the host's memory.

        Processes that train together call it together. Waits for the steps that were begun.
        """
        state = {f"weight.{number}": weight for number, weight in enumerate(self._parameters)}
        for number, values in self._adamw.state_dict()["state"].items():
            state |= {f"{name}.{number}": value for name, value in values.items()}
        state = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
        drawn = {"random.cpu": torch.get_rng_state()}
        if self._backbone.device.type != "cpu":
            drawn["random.device"] = torch.get_device_module(self._backbone.device).get_rng_state()
        return state | {name: self._ranks.gather(at) if self._ranks else at[None] for name, at in drawn.items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a `state` of the same training."""
        of_adamw: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            name, of = key.split(".")
            if name == "weight":
                self._parameters[int(of)].data.copy_(value)
            elif name != "random":
                of_adamw.setdefault(int(of), {})[name] = value
        self._adamw.load_state_dict(self._adamw.state_dict() | {"state": of_adamw})
        rank = self._ranks.rank if self._ranks else 0
        # Copied first: docs/libraries.md.
        drawn = {name: state[name][rank].clone() for name in state if name.startswith("random")}
        torch.set_rng_state(drawn["random.cpu"])
        if self._backbone.device.type != "cpu":
            torch.get_device_module(self._backbone.device).set_rng_state(drawn["random.device"])

    def _added_up(self, ranks: Ranks, loss: float) -> float:
        """Replace the gradients by their sums over all processes, sent as one tensor; the same of the loss."""
        for weight in self._parameters:
            if weight.grad is None:  # no row was this process's
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in self._parameters if weight.grad is not None]
        together = torch.cat([*(gradient.flatten() for gradient in gradients)])
        ranks.add_up(together)
        for gradient, added in zip(
            gradients, together.split([gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(added.view_as(gradient))
        both = torch.tensor(loss, dtype=torch.float64, device=together.device)
        ranks.add_up(both)
        return float(both)

    def _flat_gradient(
        self, flat: FlatAdamW, batches: Sequence[Sequence[TokenRow]], general: GeneralBatch, weight: float
    ) -> torch.Tensor | float:
        if self._captured is not None:
            try:
                return self._captured.gradient(batches, general, weight)
            except CannotCapture:
                self._captured = None
            torch.cuda.empty_cache()
        loss = compute_gradient(self._backbone, batches, self._budget, general, weight, self._together)
        flat.collect_gradients()
        return loss

    def close(self) -> None:
        """Let gradients and graphs go."""
        self._captured = None
        if self._flat is not None:
            self._flat.close()
