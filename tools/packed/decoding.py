"""Greedy decoding of many rows from one trunk; finished rows leave the batch."""

from collections.abc import Sequence
from typing import Any

import torch

from tools.model.chat_template import TokenRow
from tools.model.generation_config import Constraints
from tools.packed.attention import KeysValues, Rule, Trunk, capped, softmax
from tools.packed.early_stopping import Answers
from tools.packed.packing import Pack, alike, logits, pack, pack_logits


def grow(model: Any, trunk: Trunk, ids: Sequence[int], device: torch.device) -> Trunk:
    """A trunk of just these ids, run from where it parts from `trunk`."""
    length = alike(trunk.ids, ids)
    start, rest = trunk.cut(length), list(ids[length:])
    if not rest:
        return start
    run = pack([TokenRow([*ids], [])], device, start)
    run.kept = {}
    pack_logits(model, run)
    return start.grown(rest, run.kept)


def decode(
    model: Any,
    rows: Sequence[TokenRow],
    trunk: Trunk,
    answers: Answers,
    constraints: Constraints,
    max_new_tokens: int,
    device: torch.device,
) -> None:
    """The greedy continuation of every row, told to `answers` until none is alive.

    Token for token what `model.generate(do_sample=False)` gives on each row alone, except where two logits are
    equal to the last bits of rounding.

    Args:
        rows: with empty completions; all begin with the trunk's ids.
    """
    start = pack(rows, device, trunk)
    start.kept = {}
    said = pack_logits(model, start)
    batch = Branches(start, max_new_tokens)
    for left in range(max_new_tokens, 0, -1):
        token = constraints(answers.alive, answers.ids, said).argmax(dim=-1)
        stay = answers.hear(token.tolist())
        if left == 1 or not stay:
            return
        if len(stay) < len(token):
            places = torch.tensor(stay, device=device)
            batch.keep(places)
            token = token[places]
        batch.advance()
        said = logits(model, batch, token[None], batch.positions[None], torch.arange(len(stay), device=device))


class Branches:
    """Rows under way, a new token each: the trunk's keys and values once, and each row's own. Satisfies `Packed`.

    Args:
        start: the pass over the rows' questions, with what it kept.
        room: new tokens that may follow.
    """

    def __init__(self, start: Pack, room: int) -> None:
        assert start.kept is not None, "the pass over the questions keeps its keys and values"
        self._trunk = start.trunk
        self._lengths = torch.bincount(start.owner)  # of each row, without the trunk
        slots = start.positions[0] - len(start.trunk.ids)
        places = int(self._lengths.max()) + room
        self._own = {
            layer: (_spread(key, start.owner, slots, places), _spread(value, start.owner, slots, places))
            for layer, (key, value) in start.kept.items()
        }
        self._hidden: dict[int | None, torch.Tensor] = {}

    @property
    def positions(self) -> torch.Tensor:
        """[B] where the newest token of each row stands."""
        return len(self._trunk.ids) + self._lengths - 1

    def advance(self) -> None:
        """Make a place for a new token in every row."""
        self._lengths = self._lengths + 1
        self._longest = int(self._lengths.max())
        self._hidden = {}

    def keep(self, rows: torch.Tensor) -> None:
        """Let all rows go but these."""
        self._lengths = self._lengths[rows]
        self._own = {layer: (key[:, rows], value[:, rows]) for layer, (key, value) in self._own.items()}

    def attend(self, layer: int, query: torch.Tensor, keys_values: KeysValues, rule: Rule) -> torch.Tensor:
        """Every row's new token over the trunk and its own row. Inside, axes are [key heads, rows, group, …]."""
        key, value = self._with_new(layer, keys_values)
        heads, rows, longest, width = key.shape
        trunk_key, trunk_value = self._trunk.layers.get(layer, (_nothing(key), _nothing(value)))
        asks = query[0].view(heads, -1, rows, width).transpose(1, 2) * rule.scaling
        flat = asks.reshape(heads, -1, width)
        far = flat @ trunk_key[0].transpose(1, 2)
        near = asks @ key.transpose(2, 3)
        scores = torch.cat([far.view(*near.shape[:3], trunk_key.shape[2]), near], dim=-1)
        chances = softmax(capped(scores, rule), self._hidden_slots(rule.window), value.dtype)
        far, near = chances.split([scores.shape[-1] - longest, longest], dim=-1)
        said: torch.Tensor = near @ value
        said = said + (far.reshape(heads, flat.shape[1], far.shape[-1]) @ trunk_value[0]).view_as(said)
        return said.transpose(1, 2).reshape(1, -1, rows, said.shape[-1])

    def _with_new(self, layer: int, new: KeysValues) -> KeysValues:
        rows, last = torch.arange(len(self._lengths), device=self._lengths.device), self._lengths - 1
        for own, token in zip(self._own[layer], new, strict=True):
            own[:, rows, last] = token[0]
        key, value = self._own[layer]
        return key[:, :, : self._longest], value[:, :, : self._longest]

    def _hidden_slots(self, window: int | None) -> torch.Tensor:
        """[B, 1, P + longest]: true for empty slots, and for tokens out of the window."""
        if window not in self._hidden:
            trunk = torch.arange(len(self._trunk.ids), device=self._lengths.device)
            own = torch.arange(self._longest, device=self._lengths.device)
            back = self.positions[:, None] - torch.cat([trunk, len(trunk) + own])
            self._hidden[window] = ((back < 0) if window is None else (back < 0) | (back >= window))[:, None]
        return self._hidden[window]


def _nothing(own: torch.Tensor) -> torch.Tensor:
    """The keys or values of an empty trunk, [1, heads, 0, width]."""
    return own[:, :1, :0].transpose(0, 1)


def _spread(packed: torch.Tensor, owner: torch.Tensor, slots: torch.Tensor, places: int) -> torch.Tensor:
    """Keys or values of a pass [1, heads, N, width] as [heads, rows, places, width], each row from its first place."""
    _, heads, _, width = packed.shape
    own = packed.new_zeros(heads, int(owner[-1]) + 1, places, width)
    own[:, owner, slots] = packed[0]
    return own
