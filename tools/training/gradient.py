"""The gradient of one optimizer step, in micro-batches that fit into memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from agent.errors import StepFailed
from tools.memory_budget import MemoryBudget, is_out_of_memory
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.packed.base_predictions import PredictedRow
from tools.training.general import NO_GENERAL_ROWS, GeneralBatch, general_divergence
from tools.training.ranks import Ranks

Row = TypeVar("Row", bound=TokenRow)
NOTHING = TokenRow([0], [0])  # a row to be run for the sake of other processes


class OutOfMemory(Exception):
    """A micro-batch of so many tokens and rows did not fit."""

    def __init__(self, tokens: int, rows: int) -> None:
        super().__init__(f"{tokens} tokens of {rows} rows")
        self.tokens, self.rows = tokens, rows


def compute_gradient(
    backbone: Backbone,
    batches: Sequence[Sequence[TokenRow]],
    budget: MemoryBudget,
    general: GeneralBatch = NO_GENERAL_ROWS,
    weight: float = 1.0,
    ranks: Ranks | None = None,
) -> float:
    """Set the gradient of the trainable weights: of the mean loss over all completion tokens of the step.

    Beside it counts, by its weight, the mean KL(base || adapted) over all completion tokens of the general rows.

    Where memory runs out, the whole step is computed again in micro-batches of half as many tokens, then row by row
    with gradient checkpointing. The result is the same.

    Args:
        batches: rows of one prompt each. A micro-batch holds rows of one batch.
        budget: shrinks where memory runs out, and is then kept as `backbone.memory_budget`.
        weight: of the mean loss, in the gradient and in what is returned; see `tools.training.ranks.Share`.
        ranks: the processes among which the base is divided: this one runs a pass whenever another does. None: it is
            not divided.

    Returns:
        The loss in nats per completion token, without that of general rows.

    Raises:
        StepFailed: not even a single row fits.
        RuntimeError: memory ran out, and the base is divided: the others cannot begin again.
    """
    trained = [parameter for parameter in backbone.model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = None
    while True:
        try:
            return _accumulate(backbone, batches, budget, general, weight, ranks)
        except OutOfMemory as error:
            tokens, rows = error.tokens, error.rows
        # Only here, after the handler, are the frames of the failed micro-batch gone, and the tensors that they held.
        for parameter in trained:
            parameter.grad = None
        backbone.release_decoder(all_of_it=True)
        if backbone.device.type in ("cuda", "mps"):
            getattr(torch, backbone.device.type).empty_cache()
        if not budget.shrink(tokens, rows):
            raise StepFailed(
                f"memory does not hold one training row of {tokens} tokens; lower lora.max_tokens or lora.rank, or "
                "take a smaller model"
            )
        backbone.memory_budget = budget


def _accumulate(
    backbone: Backbone,
    batches: Sequence[Sequence[TokenRow]],
    budget: MemoryBudget,
    general: GeneralBatch,
    weight: float,
    ranks: Ranks | None,
) -> float:
    """Forward and backward of each micro-batch; their gradients add up. Raises OutOfMemory."""

    def losses(rows: Sequence[TokenRow]) -> torch.Tensor:
        return backbone.losses(backbone.model, rows)

    def divergences(rows: Sequence[PredictedRow]) -> torch.Tensor:
        return general_divergence(backbone, rows)

    loss = _backward(backbone, batches, budget, losses, weight, ranks)
    if general.rows:
        _backward(backbone, [general.rows], budget, divergences, general.weight, ranks)
    while ranks and ranks.any(False):
        with backbone.recomputing(budget.checkpointing):
            (losses([NOTHING]).sum() * 0).backward()
    return loss * weight


def _backward(
    backbone: Backbone,
    batches: Sequence[Sequence[Row]],
    budget: MemoryBudget,
    values: Callable[[Sequence[Row]], torch.Tensor],
    weight: float,
    ranks: Ranks | None,
) -> float:
    """Add the gradient of the mean over all completion tokens of these values, times the weight.

    Args:
        values: of some rows, [N] in nats, one for each completion token.

    Returns:
        The mean in nats.
    """
    targets = sum(len(row.completion) for batch in batches for row in batch)
    mean = 0.0
    for batch in batches:
        for rows in micro_batches(backbone, batch, budget.tokens):
            if ranks:
                ranks.any(True)  # they all run a pass now
            try:
                with backbone.recomputing(budget.checkpointing):
                    part = values(rows).sum() / targets
                    (part * weight).backward()
            except RuntimeError as error:
                if ranks is None and is_out_of_memory(error):
                    raise OutOfMemory(backbone.cost(rows), len(rows)) from None
                raise
            mean += part.item()
    return mean


def micro_batches(backbone: Backbone, rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """The rows in order, in lists that run at most so many tokens; a longer row stays alone."""
    if backbone.cost(rows) <= tokens:  # no part of them costs more
        yield list(rows)
        return
    batch: list[Row] = []
    for row in rows:
        if batch and backbone.cost([*batch, row]) > tokens:
            yield batch
            batch = []
        batch.append(row)
    yield batch
