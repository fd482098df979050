"""Rows that begin alike as one sequence: the common prefix is run once, and nothing is padding.

The rows of one prompt share its system text and demonstrations, often ten times as long as a question. Losses,
gradients and texts are those of the plain forward pass (to rounding).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from tools.model.chat_template import TokenRow
from tools.model.composite import text_config, turned_beyond
from tools.packed.attention import NAME, NO_MASK, SHARED, KeysValues, Rule, Trunk, joined, weighted
from tools.training.memory_budget import is_out_of_memory

# Queries of one attention call. On a processor few, so that little is computed only to be masked away; elsewhere calls
# cost more than that.
PART = {"cpu": 128}
PART_ELSEWHERE = 1024


@dataclass
class Pack:
    """One sequence of N tokens: P shared ones, then each row's own. Satisfies `tools.packed.attention.Packed`.

    Attributes:
        ids, positions: [1, N]. A token's position is the one it has in its row.
        owner: [N] the row a token belongs to, or SHARED.
        shared: P.
        scored: [S] the tokens whose logits are wanted.
        parts: ranges of tokens that attend in one call, each beginning where a row or the prefix begins.
        trunk: what all rows continue from, already run.
        kept: keys and values of the pass by layer, where they are wanted afterwards.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    owner: torch.Tensor
    shared: int
    scored: torch.Tensor
    parts: list[tuple[int, int]]
    trunk: Trunk
    kept: dict[int, KeysValues] | None = None
    _masks: dict[tuple[int, int | None], torch.Tensor | None] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens that are run."""
        return self.ids.shape[1]

    @property
    def windows(self) -> set[int | None]:
        """Those that layers have attended within so far."""
        return {window for _, window in self._masks}

    def attend(self, layer: int, query: torch.Tensor, keys_values: KeysValues, rule: Rule) -> torch.Tensor:
        """Every token over its row's earlier ones and the shared ones."""
        if self.kept is not None:
            self.kept[layer] = keys_values
        trunk = self.trunk.layers.get(layer)
        common = joined(trunk, _slice(keys_values, 0, self.shared))
        outputs = []
        for part, (start, end) in enumerate(self.parts):
            before = trunk if start < self.shared else common
            seen = joined(before, _slice(keys_values, start, end))
            outputs.append(weighted(query[:, :, start:end], seen, self._mask(part, rule.window), rule))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)

    def _mask(self, part: int, window: int | None) -> torch.Tensor | None:
        """[queries, keys] of a part, true where a key is seen; None where that is plainly causal."""
        if (part, window) not in self._masks:
            self._masks[part, window] = self._made_mask(*self.parts[part], window)
        return self._masks[part, window]

    def _made_mask(self, start: int, end: int, window: int | None) -> torch.Tensor | None:
        before = slice(0, 0 if start < self.shared else self.shared)
        where, whose = self.positions[0], self.owner
        key_where = torch.cat([self._trunk_positions, where[before], where[start:end]])
        key_whose = torch.cat([whose.new_full(self._trunk_positions.shape, SHARED), whose[before], whose[start:end]])
        back = where[start:end, None] - key_where
        mask = (back >= 0) & ((key_whose == SHARED) | (key_whose == whose[start:end, None]))
        if window is not None:
            mask &= back < window
        causal = mask.shape[0] == mask.shape[1] and torch.equal(mask, torch.ones_like(mask).tril())
        return None if causal else mask

    @cached_property
    def _trunk_positions(self) -> torch.Tensor:
        return torch.arange(len(self.trunk.ids), device=self.ids.device)


def common_prefix(rows: Sequence[TokenRow]) -> list[int]:
    """The ids with which all prompts begin, leaving each at least one token of its own."""
    first, last = min(row.prompt for row in rows), max(row.prompt for row in rows)
    return first[: min(alike(first, last), min(len(row.prompt) for row in rows) - 1)]


def alike(first: Sequence[int], second: Sequence[int]) -> int:
    """With how many ids both begin."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))


def pack(rows: Sequence[TokenRow], device: torch.device, trunk: Trunk | None = None) -> Pack:
    """Rows as one sequence, scored where a completion token is predicted; after the last token, where there is none.

    Args:
        trunk: what all prompts begin with, already run; None: what they share is run with them.
    """
    prefix = common_prefix(rows) if trunk is None and len(rows) > 1 else []  # a row alone attends in one call
    skip = len(prefix) if trunk is None else len(trunk.ids)
    ids, positions, owner = list(prefix), list(range(len(prefix))), [SHARED] * len(prefix)
    scored: list[int] = []
    borders = [0] if prefix else []
    for number, row in enumerate(rows):
        own = row.prompt[skip:] + row.completion
        borders.append(len(ids))
        last = len(ids) + len(own) - 1
        scored += range(last - len(row.completion), last) if row.completion else [last]
        ids += own
        positions += range(skip, skip + len(own))
        owner += [number] * len(own)
    return Pack(
        ids=torch.tensor([ids], device=device), positions=torch.tensor([positions], device=device),
        owner=torch.tensor(owner, device=device), shared=len(prefix), scored=torch.tensor(scored, device=device),
        parts=list(_parts([*borders, len(ids)], PART.get(device.type, PART_ELSEWHERE))), trunk=trunk or Trunk(),
    )  # fmt: skip


def _parts(borders: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Neighbouring stretches taken together while they hold at most so many tokens; a longer one stays alone."""
    start = borders[0]
    for end, following in zip(borders[1:], [*borders[2:], None], strict=True):
        if following is None or following - start > most:
            yield start, end
            start = end


def logits(model: Any, packed: Any, ids: torch.Tensor, positions: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """[S, vocabulary] after the tokens `scored` of one packed pass over ids [1, N]."""
    nothing = ids.new_empty(NO_MASK)
    given = {"input_ids": ids, "position_ids": positions, "attention_mask": nothing, "logits_to_keep": scored}
    return model(**given, use_cache=False, packed=packed).logits[0]  # type: ignore[no-any-return]


def pack_logits(model: Any, batch: Pack) -> torch.Tensor:
    """[S, vocabulary] after the tokens that the pack is scored at."""
    return logits(model, batch, batch.ids, batch.positions, batch.scored)


def completion_nll(model: Any, batch: Pack, rows: Sequence[TokenRow]) -> torch.Tensor:
    """NLL of every completion token, row after row: [S] in nats. Differentiable."""
    wanted = torch.tensor([token for row in rows for token in row.completion], device=batch.ids.device)
    said = pack_logits(model, batch).float()
    return torch.nn.functional.cross_entropy(said, wanted, reduction="none")


def _slice(keys_values: KeysValues, start: int, end: int) -> KeysValues:
    key, value = keys_values
    return key[:, :, start:end], value[:, :, start:end]


# --- which models can -------------------------------------------------------------------------------

# What architectures raise that hand attention another thing than it knows: a mask, a scale, a layer without a number.
UNKNOWN = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError)  # NotImplementedError too
PROBE = [TokenRow([3, 5, 4, 6], [7]), TokenRow([3, 5, 4, 8, 9], [10, 11, 6])]


def can_pack(model: PreTrainedModel) -> bool:
    """Switch a model to packed attention, if it then says of packed rows what it says of each alone.

    The model is asked, and not its configuration only: architectures differ in what they hand on to attention.
    Where it cannot (state beside keys and values, biases by position, sinks, chunks), it is left as it was.
    """
    windows = _windows(model)
    if windows is None:
        return False
    with torch.no_grad():
        alone = torch.cat([_alone(model, row) for row in PROBE])
        before = model.config._attn_implementation
        agrees = False
        try:
            model.set_attn_implementation(NAME)
            agrees = model.config._attn_implementation == NAME and _agrees(model, alone, windows)
        finally:
            if not agrees:
                model.set_attn_implementation(before)
    return agrees


def _windows(model: PreTrainedModel) -> set[int | None] | None:
    """The windows of its layers; instead, None where layers keep more than keys and values, or attend in chunks."""
    config = text_config(model.config)
    kinds = set(getattr(config, "layer_types", None) or ())
    if model._is_stateful or not kinds <= {"full_attention", "sliding_attention"}:
        return None
    if not model._can_set_attn_implementation() or turned_beyond(config) is not None:
        return None
    layers = DynamicCache(config=config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return None
    return {getattr(layer, "sliding_window", None) for layer in layers} or {None}


def _alone(model: PreTrainedModel, row: TokenRow) -> torch.Tensor:
    ids = torch.tensor([[*row.prompt, *row.completion]], device=model.device)
    said: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return said[0, len(row.prompt) - 1 : -1].float()


def _agrees(model: PreTrainedModel, alone: torch.Tensor, windows: set[int | None]) -> bool:
    batch = pack(PROBE, model.device)
    try:
        said = pack_logits(model, batch).float()
    except UNKNOWN as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        return False
    if said.shape != alone.shape or batch.windows != windows:  # rows as short as the probe's do not feel a window
        return False
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    return bool((said - alone).abs().max() <= tolerance * alone.abs().max())
