"""The memory budget of a micro-batch: estimated first, then learned from what did not fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tools.model.composite import text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARE = 0.6  # of the free memory: the rest is for what the estimate leaves out


@dataclass
class MemoryBudget:
    """Most tokens of a micro-batch, and whether activations are recomputed instead of kept (checkpointing)."""

    tokens: int
    checkpointing: bool = False

    def shrink(self, tokens: int, rows: int) -> bool:
        """Learn that a micro-batch of so many tokens and rows did not fit. False: there is nothing left to try."""
        if rows > 1:
            self.tokens = tokens // 2
        elif self.checkpointing:
            return False
        self.checkpointing |= rows == 1
        return True


def memory_budget_for(model: "PreTrainedModel", checkpointing: bool, known: MemoryBudget | None) -> MemoryBudget:
    """What should fit into the free memory of the model's device.

    Args:
        checkpointing: as the task wants it.
        known: what an earlier training learned; the budget is no larger.
    """
    recomputing = checkpointing or (known is not None and known.checkpointing)
    estimate = int(SHARE * free_memory(model.device) / _bytes_per_token(model, recomputing))
    return MemoryBudget(estimate if known is None else min(estimate, known.tokens), recomputing)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    available = int(psutil.virtual_memory().available)
    # What Linux still grants a container; beyond it, it kills the process instead of refusing.
    limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    try:
        return min(available, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return available


def _bytes_per_token(model: "PreTrainedModel", checkpointing: bool) -> float:
    """Bytes that the backward pass keeps per token, for gated feed-forward layers with LoRA on all linear layers.

    A layer keeps about 13 tensors [T, hidden] and 5 [T, inner]; with checkpointing, all layers keep their input and
    only one layer at a time keeps the rest.
    """
    config, size = text_config(model.config), model.dtype.itemsize
    layers = config.num_hidden_layers
    hidden, inner = config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    layer = (13 * hidden + 5 * inner) * size
    logits = 12 * config.vocab_size / 4  # [S / 4, V] in fp32 with softmax and gradient: one token in four is scored
    return float((layers * hidden * size + layer if checkpointing else layers * layer) + logits)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed, on any device."""
    message = str(error).lower()
    named = "out of memory" in message or "can't allocate memory" in message
    return named or isinstance(error, torch.OutOfMemoryError)
