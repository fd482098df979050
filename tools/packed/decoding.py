"""Greedy decoding of many rows that share a prefix cache, or a few; finished rows leave the batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from tools.model.chat_template import TokenRow
from tools.model.generation_config import Constraints
from tools.packed.attention import AttentionOptions, KeysValues, apply_softcap, masked_softmax
from tools.packed.early_stopping import Completions
from tools.packed.packing import PackedBatch, common_length, pack, pack_logits
from tools.packed.parts import Part, run_joined
from tools.packed.prefix_cache import PrefixCache


def run_prefix(model: PreTrainedModel, cache: PrefixCache, ids: Sequence[int], device: torch.device) -> PrefixCache:
    """A cache of exactly these ids; only those behind what `cache` has in common with them are run."""
    known = cache.first(common_length(cache.ids, ids))
    missing = list(ids[len(known.ids) :])
    if not missing:
        return known
    batch = pack([TokenRow([*ids], [])], device, known)
    batch.kept = {}
    pack_logits(model, batch)
    return known.extended(missing, batch.kept)


@dataclass(frozen=True)
class PrefixedRows:
    """Rows to be answered, with empty completions; their prompts all begin with the prefix's ids."""

    prefix: PrefixCache
    rows: Sequence[TokenRow]


def run_prompts(
    model: PreTrainedModel, groups: Sequence[PrefixedRows], device: torch.device
) -> tuple[list[PackedBatch], torch.Tensor]:
    """One pass over the own tokens of all rows.

    Returns:
        For each group the pass as it saw it, with the keys and values it kept; logits [B, V] after all prompts.
    """
    prompts = [pack(group.rows, device, group.prefix) for group in groups]
    for batch in prompts:
        batch.kept = {}
    logits = run_joined(model, [Part(batch, batch.ids[0], batch.positions[0], batch.scored) for batch in prompts])
    return prompts, logits


def decode(
    model: PreTrainedModel,
    groups: Sequence[PrefixedRows],
    completions: Completions,
    constraints: Constraints,
    max_new_tokens: int,
    device: torch.device,
) -> None:
    """Append the greedy continuation of every row to `completions`, until no row is active.

    Token for token what `model.generate(do_sample=False)` gives on each row alone, except where two logits are
    equal to the last bits of rounding.

    Args:
        completions: of the rows of all groups, one group after another.
    """
    prompts, logits = run_prompts(model, groups, device)
    batches = [DecodeBatch(batch, max_new_tokens) for batch in prompts]
    for remaining in range(max_new_tokens, 0, -1):
        tokens = constraints(completions.active, completions.ids, logits).argmax(dim=-1)  # [B]
        staying = completions.append(tokens.tolist())
        if remaining == 1 or not staying:
            return
        if len(staying) < len(tokens):
            batches = _kept(batches, staying)
            tokens = tokens[torch.tensor(staying, device=device)]
        parts = []
        for batch, newest in zip(batches, tokens.split([len(batch) for batch in batches]), strict=True):
            batch.advance()
            parts.append(Part(batch, newest, batch.positions, torch.arange(len(batch), device=device)))
        logits = run_joined(model, parts)


def _kept(batches: Sequence["DecodeBatch"], staying: Sequence[int]) -> list["DecodeBatch"]:
    """The batches without the rows that have ended; `staying` counts through the rows of all."""
    left, first = [], 0
    for batch in batches:
        end = first + len(batch)
        places = [place - first for place in staying if first <= place < end]
        if len(places) < len(batch):
            batch.keep(places)
        if places:
            left.append(batch)
        first = end
    return left


class DecodeBatch:
    """Rows that get one new token per forward pass: one prefix cache for all, and the own keys and values of each row.

    Satisfies `tools.packed.attention.PackedForward`.

    Args:
        prompts: the pass over the rows' prompts, with the keys and values it kept.
        max_new_tokens: how often `advance` may be called.
    """

    def __init__(self, prompts: PackedBatch, max_new_tokens: int) -> None:
        assert prompts.kept is not None, "the pass over the prompts keeps its keys and values"
        self._prefix = prompts.prefix
        self._lengths = torch.bincount(prompts.owner)  # [B] own tokens of each row, behind the prefix
        slots = prompts.positions[0] - len(prompts.prefix.ids)  # [S] the place of a token in its row
        T = int(self._lengths.max()) + max_new_tokens
        self._own = {
            layer: (_by_row(key, prompts.owner, slots, T), _by_row(value, prompts.owner, slots, T))
            for layer, (key, value) in prompts.kept.items()
        }
        self._hidden: dict[int | None, torch.Tensor] = {}

    def __len__(self) -> int:
        """B: its rows."""
        return len(self._lengths)

    @property
    def positions(self) -> torch.Tensor:
        """[B] the position of each row's newest token."""
        return len(self._prefix.ids) + self._lengths - 1

    def advance(self) -> None:
        """Make room for a new token in every row."""
        self._lengths = self._lengths + 1
        self._longest = int(self._lengths.max())
        self._hidden = {}

    def keep(self, places: Sequence[int]) -> None:
        """Drop all rows but those at these places."""
        rows = torch.tensor(places, dtype=torch.long, device=self._lengths.device)
        self._lengths = self._lengths[rows]
        self._own = {layer: (key[:, rows], value[:, rows]) for layer, (key, value) in self._own.items()}

    def attend(
        self, layer: int, query: torch.Tensor, keys_values: KeysValues, options: AttentionOptions
    ) -> torch.Tensor:
        """The new token of every row attends to the prefix and to its own row: [1, H, B, D]."""
        key, value = self._with_new_tokens(layer, keys_values)
        K, B, T, D = key.shape
        P = len(self._prefix.ids)
        no_prefix = (key.new_empty(1, K, 0, D), value.new_empty(1, K, 0, value.shape[-1]))
        prefix_key, prefix_value = (tensor[0] for tensor in self._prefix.layers.get(layer, no_prefix))  # [K, P, D]
        query = query[0].view(K, -1, B, D).transpose(1, 2) * options.scaling  # [K, B, G, D]
        G = query.shape[2]
        # To the prefix, all rows are one matrix of queries, so that its keys are read once.
        prefix_scores = query.reshape(K, B * G, D) @ prefix_key.transpose(1, 2)
        scores = torch.cat([prefix_scores.view(K, B, G, P), query @ key.transpose(2, 3)], dim=-1)  # [K, B, G, P + T]
        weights = masked_softmax(
            apply_softcap(scores, options.softcap), self._hidden_slots(options.window), value.dtype
        )
        prefix_weights, own_weights = weights.split([P, T], dim=-1)
        output: torch.Tensor = own_weights @ value
        output = output + (prefix_weights.reshape(K, B * G, P) @ prefix_value).view_as(output)
        return output.transpose(1, 2).reshape(1, K * G, B, -1)

    def _with_new_tokens(self, layer: int, new: KeysValues) -> KeysValues:
        """Store the new tokens' keys and values, each [1, K, B, D]; the rows' own so far, each [K, B, longest, D]."""
        rows, last = torch.arange(len(self._lengths), device=self._lengths.device), self._lengths - 1
        for own, token in zip(self._own[layer], new, strict=True):
            own[:, rows, last] = token[0]
        key, value = self._own[layer]
        return key[:, :, : self._longest], value[:, :, : self._longest]

    def _hidden_slots(self, window: int | None) -> torch.Tensor:
        """[B, 1, P + longest]: true for empty slots, and for tokens outside the window."""
        if window not in self._hidden:
            slots = torch.arange(len(self._prefix.ids) + self._longest, device=self._lengths.device)
            distance = self.positions[:, None] - slots
            hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
            self._hidden[window] = hidden[:, None]
        return self._hidden[window]


def _by_row(packed: torch.Tensor, owner: torch.Tensor, slots: torch.Tensor, T: int) -> torch.Tensor:
    """Keys or values of a packed pass [1, K, S, D] as [K, B, T, D], zero where a row has no token."""
    _, K, _, D = packed.shape
    own = packed.new_zeros(K, int(owner[-1]) + 1, T, D)
    own[:, owner, slots] = packed[0]
    return own
