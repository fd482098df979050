"""A packed training pass of a fixed size: padded, and with one mask, so that it can be captured and replayed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv

from tools.model.chat_template import TokenRow
from tools.packed.attention import NO_MASK, SHARED, AttentionOptions, KeysValues
from tools.packed.base_predictions import PredictedRow, divergence, predictions
from tools.packed.packing import PackedBatch

PADDING = -2  # the row number of tokens that stand for none


class StaticPass:
    """S tokens of a packed pass, N of them scored. Satisfies `tools.packed.attention.PackedForward`.

    Args:
        K: of general rows, the tokens that are told apart in the base's predictions; 0 for training rows.
    """

    def __init__(self, S: int, N: int, K: int, device: torch.device) -> None:
        self.S, self.N = S, N
        self._tokens = torch.zeros(3, S, dtype=torch.long, device=device)  # ids, positions, owners
        self._scored = torch.zeros(2, N, dtype=torch.long, device=device)  # places, and the tokens wanted there
        self._weights = torch.zeros(N, device=device)
        self._likeliest = torch.zeros(N, K, dtype=torch.long, device=device)
        self._chances = torch.zeros(N, K, device=device)
        self._masks: dict[int | None, torch.Tensor] = {}

    def load(self, batch: PackedBatch, rows: Sequence[TokenRow], weight: float) -> None:
        """Take a pass over rows, whose tensors are on the CPU. Each scored token counts with this weight."""
        tokens = torch.zeros(3, self.S, dtype=torch.long)
        tokens[2] = PADDING
        tokens[:, : batch.tokens] = torch.stack([batch.ids[0], batch.positions[0], batch.owner])
        targets = [token for row in rows for token in row.completion]
        scored = torch.zeros(2, self.N, dtype=torch.long)
        scored[:, : len(targets)] = torch.stack([batch.scored, torch.tensor(targets)])
        weights = torch.zeros(self.N)
        weights[: len(targets)] = weight
        for buffer, value in ((self._tokens, tokens), (self._scored, scored), (self._weights, weights)):
            buffer.copy_(value.pin_memory() if buffer.is_cuda else value, non_blocking=True)
        if predicted := [row for row in rows if isinstance(row, PredictedRow)]:
            for buffer, value in zip((self._likeliest, self._chances), predictions(predicted), strict=True):
                buffer[: len(value)] = value  # on the device already

    def loss(self, model: Any) -> torch.Tensor:
        """The weighted sum of the NLL of the scored tokens, or of KL(base || adapted), in nats. Differentiable."""
        self._masks = {}
        ids, positions = self._tokens[0][None], self._tokens[1][None]
        logits = model(
            input_ids=ids, position_ids=positions, attention_mask=ids.new_empty(NO_MASK), use_cache=False,
            logits_to_keep=self._scored[0], packed=self,
        ).logits[0]  # fmt: skip
        losses: torch.Tensor
        if self._chances.shape[1]:
            losses = divergence(logits, self._likeliest, self._chances)
        else:
            losses = cross_entropy(logits.float(), self._scored[1], reduction="none")
        return losses @ self._weights

    def attend(
        self, layer: int, query: torch.Tensor, keys_values: KeysValues, options: AttentionOptions
    ) -> torch.Tensor:
        """Every token attends to the earlier ones of its row and to the shared ones: [1, H, S, D]."""
        if options.softcap is not None:
            raise NotImplementedError("capped scores")
        G = query.shape[1] // keys_values[0].shape[1]
        key, value = (repeat_kv(tensor, G) for tensor in keys_values)
        if options.window not in self._masks:
            self._masks[options.window] = self._mask(options.window, query.dtype)
        mask = self._masks[options.window]
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=options.dropout, scale=options.scaling
        )

    def _mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """[S, S] to add to scores: 0 where a key is seen, else minus infinity."""
        _, positions, owners = self._tokens
        distance = positions[:, None] - positions
        seen = (distance >= 0) & ((owners == SHARED) | (owners == owners[:, None]))
        if window is not None:
            seen &= distance < window
        return torch.zeros(self.S, self.S, dtype=dtype, device=distance.device).masked_fill(~seen, -torch.inf)
