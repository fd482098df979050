"""The gradient of one optimizer step, in as few passes as memory has room for."""

from collections.abc import Iterator, Sequence

import torch

from agent.errors import StepFailed
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.training.memory_budget import MemoryBudget, is_out_of_memory


class OutOfMemory(Exception):
    """A pass of so many tokens and rows did not fit."""

    def __init__(self, tokens: int, rows: int) -> None:
        super().__init__(f"{tokens} tokens of {rows} rows")
        self.tokens, self.rows = tokens, rows


def gradient(backbone: Backbone, micro_batches: Sequence[Sequence[TokenRow]], room: MemoryBudget) -> tuple[float, int]:
    """Set the gradient to that of the mean loss over all completion tokens of a step.

    Where memory runs out, the whole step is done again in passes of half as many tokens, then row by row with
    gradient checkpointing: the same result. `room` takes note.

    Args:
        micro_batches: rows of one prompt each; a pass holds rows of one of them.

    Returns:
        The loss in nats per completion token, and the tokens that were run.

    Raises:
        StepFailed: not even one row fits.
    """
    parameters = [weight for weight in backbone.model.parameters() if weight.requires_grad]
    for weight in parameters:
        weight.grad = None
    while True:
        try:
            return _in_passes(backbone, micro_batches, room)
        except OutOfMemory as failed:
            tokens, rows = failed.tokens, failed.rows
        # Only here, after the handler, are the frames of the failed pass gone, and the tensors that they held.
        for weight in parameters:
            weight.grad = None
        _release(backbone.device)
        if not room.shrink(tokens, rows):
            raise StepFailed(
                f"memory does not hold one training row of {tokens} tokens; lower lora.max_tokens or lora.rank, or "
                "take a smaller model"
            )
        backbone.room = room


def _in_passes(
    backbone: Backbone, micro_batches: Sequence[Sequence[TokenRow]], room: MemoryBudget
) -> tuple[float, int]:
    scored = sum(len(row.completion) for rows in micro_batches for row in rows)
    loss, tokens = 0.0, 0
    for micro_batch in micro_batches:
        for rows in passes(backbone, micro_batch, room.tokens):
            loss += _one_pass(backbone, rows, scored, room.checkpointing)
            tokens += backbone.cost(rows)
    return loss, tokens


def passes(backbone: Backbone, rows: Sequence[TokenRow], tokens: int) -> Iterator[list[TokenRow]]:
    """The rows in their order, in stretches that cost at most so many tokens; a longer row stays alone."""
    some: list[TokenRow] = []
    for row in rows:
        if some and backbone.cost([*some, row]) > tokens:
            yield some
            some = []
        some.append(row)
    yield some


def _one_pass(backbone: Backbone, rows: list[TokenRow], scored: int, checkpointing: bool) -> float:
    try:
        with backbone.recomputing(checkpointing):
            part = backbone.losses(backbone.model, rows).sum() / scored
            part.backward()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise OutOfMemory(backbone.cost(rows), len(rows)) from None
        raise
    return part.item()


def _release(device: torch.device) -> None:
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).empty_cache()
