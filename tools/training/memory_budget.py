"""How much one training pass may hold, so that a step fits into memory: guessed first, then learned."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tools.model.composite import text_config

SHARE = 0.6  # of the free memory: the rest is for what the guess leaves out


@dataclass
class MemoryBudget:
    """Tokens of one pass, and whether activations are recomputed instead of kept (gradient checkpointing)."""

    tokens: int
    checkpointing: bool = False

    def shrink(self, tokens: int, rows: int) -> bool:
        """Take note that a pass of so many tokens and rows did not fit. False: there is nothing left to try."""
        if rows > 1:
            self.tokens = tokens // 2
        elif self.checkpointing:
            return False
        self.checkpointing |= rows == 1
        return True


def memory_budget_for(model: Any, checkpointing: bool, known: MemoryBudget | None) -> MemoryBudget:
    """What should fit into the memory that is free on the model's device, and no more than is known to fit."""
    recomputing = checkpointing or (known is not None and known.checkpointing)
    guessed = int(SHARE * free_memory(model.device) / _bytes_per_token(model, recomputing))
    return MemoryBudget(guessed if known is None else min(guessed, known.tokens), recomputing)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    return min(int(psutil.virtual_memory().available), _left_to_container())


def _left_to_container() -> int:
    """Bytes that Linux still grants a container; beyond them it kills instead of refusing."""
    most, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    try:
        return int(most.read_text()) - int(used.read_text())
    except (OSError, ValueError):  # not in one, or without a limit ("max")
        return sys.maxsize


def _bytes_per_token(model: Any, checkpointing: bool) -> float:
    """Of a transformer with gated feed-forward layers and LoRA on all of them: what its backward pass keeps."""
    config, size = text_config(model.config), model.dtype.itemsize
    layers = config.num_hidden_layers
    hidden, inner = config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    layer = (13 * hidden + 5 * inner) * size
    logits = 12 * config.vocab_size / 4  # in fp32, with their softmax and gradient; one token in four is scored
    return float((layers * hidden * size + layer if checkpointing else layers * layer) + logits)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed, on whatever device."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "can't allocate memory" in said
