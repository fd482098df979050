"""Rows with a common prefix as one sequence: the prefix is run once, and nothing is padding.

The rows of one prompt share its system text and demonstrations, often ten times as long as a question. Losses,
gradients and texts are those of the plain forward pass (to rounding).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import PreTrainedModel

from tools.model.chat_template import TokenRow
from tools.packed.attention import NO_MASK, SHARED, AttentionOptions, KeysValues, PackedForward, masked_attention
from tools.packed.prefix_cache import PrefixCache, concat_tokens, slice_tokens

# Queries of one attention call. On a CPU few, so that little is computed only to be masked; elsewhere the calls
# themselves cost more than that.
MAX_QUERIES = {"cpu": 128}
MAX_QUERIES_ELSEWHERE = 1024


@dataclass
class PackedBatch:
    """One sequence of S tokens: those that all rows share, then the own tokens of each row.

    Satisfies `tools.packed.attention.PackedForward`.

    Attributes:
        ids: [1, S].
        positions: [1, S] the position of a token in its row.
        owner: [S] the row a token belongs to, or SHARED.
        shared: how many tokens at the start all rows share.
        scored: [N] the tokens whose logits are wanted.
        segments: ranges of tokens that attend in one call, each beginning where a row or the shared part begins.
        prefix: what all rows continue from, already run.
        kept: by layer, keys and values of the pass, each [1, K, S, D]. None: they are not kept.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    owner: torch.Tensor
    shared: int
    scored: torch.Tensor
    segments: list[tuple[int, int]]
    prefix: PrefixCache
    kept: dict[int, KeysValues] | None = None
    _masks: dict[tuple[int, int | None], torch.Tensor | None] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """S: the tokens that are run."""
        return self.ids.shape[1]

    @property
    def windows(self) -> set[int | None]:
        """Attention windows, in tokens, that layers have used in this pass so far; None for full attention."""
        return {window for _, window in self._masks}

    def attend(
        self, layer: int, query: torch.Tensor, keys_values: KeysValues, options: AttentionOptions
    ) -> torch.Tensor:
        """Every token attends to the earlier ones of its row and to the shared ones: [1, H, S, D]."""
        if self.kept is not None:
            self.kept[layer] = keys_values
        prefix = self.prefix.layers.get(layer)
        common = concat_tokens(prefix, slice_tokens(keys_values, 0, self.shared))
        outputs = []
        for segment, (start, end) in enumerate(self.segments):
            before = prefix if start < self.shared else common
            seen = concat_tokens(before, slice_tokens(keys_values, start, end))
            key = (segment, options.window)
            if key not in self._masks:  # made once for all layers
                self._masks[key] = self._made_mask(start, end, options.window)
            outputs.append(masked_attention(query[:, :, start:end], seen, self._masks[key], options))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)

    def _made_mask(self, start: int, end: int, window: int | None) -> torch.Tensor | None:
        before = slice(0, 0 if start < self.shared else self.shared)
        positions, owner = self.positions[0], self.owner
        key_positions = torch.cat([self._prefix_positions, positions[before], positions[start:end]])
        prefix_owner = owner.new_full(self._prefix_positions.shape, SHARED)
        key_owner = torch.cat([prefix_owner, owner[before], owner[start:end]])
        distance = positions[start:end, None] - key_positions
        mask = (distance >= 0) & ((key_owner == SHARED) | (key_owner == owner[start:end, None]))
        if window is not None:
            mask &= distance < window
        causal = mask.shape[0] == mask.shape[1] and torch.equal(mask, torch.ones_like(mask).tril())
        return None if causal else mask

    @cached_property
    def _prefix_positions(self) -> torch.Tensor:
        return torch.arange(len(self.prefix.ids), device=self.ids.device)


def common_prefix(rows: Sequence[TokenRow]) -> list[int]:
    """The ids with which all prompts begin, leaving each at least one token of its own."""
    first, last = min(row.prompt for row in rows), max(row.prompt for row in rows)
    return first[: min(common_length(first, last), min(len(row.prompt) for row in rows) - 1)]


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))


def pack(rows: Sequence[TokenRow], device: torch.device, prefix: PrefixCache | None = None) -> PackedBatch:
    """Rows as one sequence.

    A row with a completion is scored at the tokens before each completion token, one without at its last token.

    Args:
        prefix: what all prompts begin with, already run; None: what they share is part of this sequence.
    """
    shared = common_prefix(rows) if prefix is None and len(rows) > 1 else []  # a row alone attends in one call
    skip = len(shared) if prefix is None else len(prefix.ids)
    ids, positions, owner = list(shared), list(range(len(shared))), [SHARED] * len(shared)
    scored: list[int] = []
    borders = [0] if shared else []
    for number, row in enumerate(rows):
        own = row.prompt[skip:] + row.completion
        borders.append(len(ids))
        last = len(ids) + len(own) - 1
        scored += range(last - len(row.completion), last) if row.completion else [last]
        ids += own
        positions += range(skip, skip + len(own))
        owner += [number] * len(own)
    max_queries = MAX_QUERIES.get(device.type, MAX_QUERIES_ELSEWHERE)
    return PackedBatch(
        ids=torch.tensor([ids], device=device), positions=torch.tensor([positions], device=device),
        owner=torch.tensor(owner, device=device), shared=len(shared), scored=torch.tensor(scored, device=device),
        segments=list(_segments([*borders, len(ids)], max_queries)), prefix=prefix or PrefixCache(),
    )  # fmt: skip


def _segments(borders: list[int], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Neighbouring ranges joined while they hold at most so many tokens; a longer range stays alone."""
    start = borders[0]
    for end, following in zip(borders[1:], [*borders[2:], None], strict=True):
        if following is None or following - start > max_tokens:
            yield start, end
            start = end


def forward_logits(
    model: PreTrainedModel, packed: PackedForward, ids: torch.Tensor, positions: torch.Tensor, scored: torch.Tensor
) -> torch.Tensor:
    """Logits [N, V] of one packed pass.

    Args:
        ids, positions: [1, S].
        scored: [N] the tokens after which logits are wanted.
    """
    # Nothing is cached by transformers: with a cache, it would make a mask of its own.
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": ids.new_empty(NO_MASK)}
    return model(**inputs, logits_to_keep=scored, use_cache=False, packed=packed).logits[0]  # type: ignore[no-any-return]


def pack_logits(model: PreTrainedModel, batch: PackedBatch) -> torch.Tensor:
    """[N, V] after the tokens at which the batch is scored."""
    return forward_logits(model, batch, batch.ids, batch.positions, batch.scored)
