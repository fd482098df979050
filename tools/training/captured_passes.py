"""Packed training passes on CUDA, captured as graphs: the host only starts them."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from tools.memory_budget import MemoryBudget
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.packed.base_predictions import PredictedRow
from tools.packed.packing import pack
from tools.packed.support import UNSUPPORTED
from tools.static.graphs import captured, without_synchronizing
from tools.static.kernels.fused_norms import FusedNorms
from tools.static.training_pass import StaticPass
from tools.training.general import NO_GENERAL_ROWS, GeneralBatch
from tools.training.gradient import micro_batches

MAX_TOKENS = 8192  # of a captured pass; beyond, its one mask costs more than launches do
CPU = torch.device("cpu")

Shape = tuple[int, int, int]
"""Tokens of a pass, scored ones among them, and those told apart in the base's predictions (none for training rows)."""


class CannotCapture(Exception):
    """The model does something in a training pass that a graph does not hold, or memory does not hold the graph."""


class CapturedPasses:
    """Adds the gradients of packed passes to those that the weights have.

    The shape of a pass is rounded up. The first pass of a shape runs as it is, the second is captured, later ones
    replay it.
    """

    def __init__(self, backbone: Backbone, budget: MemoryBudget) -> None:
        self._backbone, self._budget = backbone, budget
        self._loss = torch.zeros((), device=backbone.device)
        self._passes: dict[Shape, StaticPass] = {}
        self._graphs: dict[Shape, Any] = {}
        self._on_cuda = backbone.device.type == "cuda"
        self._stream = torch.cuda.Stream() if self._on_cuda else None
        self._pool: Any = None
        self._norms = FusedNorms(backbone.base)

    def gradient(
        self,
        batches: Sequence[Sequence[TokenRow]],
        general: GeneralBatch = NO_GENERAL_ROWS,
        weight: float = 1.0,
    ) -> torch.Tensor:
        """Add the gradient of the mean loss over all completion tokens of a step, and of its general rows.

        Args:
            weight: of the mean loss, in the gradient and in what is returned.

        Returns:
            The loss in nats per completion token, on the device, without that of general rows.

        Raises:
            CannotCapture: the step must be done in another way. Gradients are in any state.
        """
        self._loss.zero_()
        try:
            self._passes_over(batches, weight)
            if general.rows:
                self._passes_over([general.rows], general.weight)
        except UNSUPPORTED as error:
            raise CannotCapture(str(error)) from error
        return self._loss.clone()

    def _passes_over(self, batches: Sequence[Sequence[TokenRow]], weight: float) -> None:
        scored = sum(len(row.completion) for rows in batches for row in rows)
        for batch in batches:
            for rows in micro_batches(self._backbone, batch, self._budget.tokens):
                self._run(self._load([row for row in rows if row.completion], weight / scored))

    def _load(self, rows: Sequence[TokenRow], weight: float) -> Shape:
        batch = pack(rows, CPU)
        told_apart = rows[0].likeliest.shape[1] if rows and isinstance(rows[0], PredictedRow) else 0
        shape = rounded(batch.tokens), rounded(len(batch.scored)), told_apart
        if shape[0] > MAX_TOKENS:
            raise NotImplementedError(f"{batch.tokens} tokens in one pass")
        if shape not in self._passes:
            self._passes[shape] = StaticPass(*shape, self._backbone.device)
        self._passes[shape].load(batch, rows, weight)
        return shape

    def _run(self, shape: Shape) -> None:
        def forward_and_back() -> None:
            with self._norms.active():
                loss = self._passes[shape].loss(self._backbone.model)
            loss.backward()
            if not shape[2]:
                self._loss += loss.detach()

        if not self._on_cuda:
            forward_and_back()
        elif shape not in self._graphs:
            tried = without_synchronizing() if not self._graphs else nullcontext()
            self._graphs[shape] = None
            assert self._stream is not None, "there is one on CUDA"
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream), tried:
                forward_and_back()
            torch.cuda.current_stream().wait_stream(self._stream)
        else:
            if self._graphs[shape] is None:
                torch.cuda.empty_cache()  # what the first pass took: the graph has memory of its own
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                self._graphs[shape] = captured(forward_and_back, self._pool, self._stream)
            self._graphs[shape].replay()


def rounded(size: int) -> int:
    """Up, by a quarter at most, so that few shapes are met: 64, 80, 96, 112, 128, 160, …"""
    step = max(16, 1 << max(0, size.bit_length() - 3))
    return -(-size // step) * step
