"""All rows that one pair of base and adapter answers at a time, one forward pass a step."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from tools.continuous.choosing import Chooser
from tools.continuous.passes import PromptPart
from tools.continuous.row import Row
from tools.continuous.slots import Slots, grown
from tools.packed.decoding import run_prefix
from tools.packed.parts import Part, run_parts
from tools.packed.prefix_cache import PrefixCache, slice_tokens

LEAST_SLOT = 64  # tokens
PROMPT_TOKENS = {"cpu": 256}  # of prompts that are run in one step; more would hold the other rows up for too long
PROMPT_TOKENS_ELSEWHERE = 2048


class Batch(Protocol):
    """Rows that are answered together."""

    rows: list[Row]

    def add(self, row: Row) -> None:
        """Take a row; it is begun with the next step."""
        ...

    def remove(self, row: Row) -> None:
        """Let a row go before its end."""
        ...

    def step(self, model: PreTrainedModel) -> None:
        """One token more for every row whose prompt is run. Rows that have ended leave."""
        ...

    def reserved(self, *more: Row) -> int:
        """Tokens of all slots, used or not, once every row has its own."""
        ...

    def lost(self) -> list[Row]:
        """Rows that cannot go on: a step has failed before they had their place."""
        ...


class ContinuousBatch:
    """For models that run packed rows (`tools.packed.support`).

    Args:
        chooser: of the model's next tokens.
        ends: ids that end an answer.
        prefix: ids with which most prompts begin: they are run once.
    """

    def __init__(self, chooser: Chooser, ends: Sequence[int], prefix: Sequence[int], device: torch.device) -> None:
        self.rows: list[Row] = []
        self._chooser, self._ends, self._device = chooser, frozenset(ends), device
        self._prefix_ids = list(prefix)
        self._prefix: PrefixCache | None = None
        self._nothing = PrefixCache()
        self._slots: dict[tuple[bool, int], Slots] = {}
        self._joining: list[Row] = []

    def add(self, row: Row) -> None:
        self._chooser.add(row)  # first: if that fails, the row is nowhere
        self.rows.append(row)
        self._joining.append(row)

    def remove(self, row: Row) -> None:
        self.rows.remove(row)
        self._chooser.forget(row)
        if row in self._joining:
            self._joining.remove(row)
        for key, slots in list(self._slots.items()):
            if row in slots.rows:
                slots.remove(row)
            if not slots.rows:
                del self._slots[key]
        row.cache = None

    def step(self, model: PreTrainedModel) -> None:
        if self._prefix is None:
            self._prefix = run_prefix(model, PrefixCache(), self._prefix_ids, self._device)
        slots = list(self._slots.values())
        prompts = self._next_prompts()
        logits = run_parts(model, [*map(self._newest, slots), *(prompt.part for prompt in prompts)])
        for group, scores in zip(slots, logits, strict=False):
            for row in self._taken(list(group.rows), scores):
                self.remove(row)
        for prompt, scores in zip(prompts, logits[len(slots) :], strict=True):
            whole = prompt.keep()
            rows = [row for row, _ in whole]
            if not rows:
                continue
            self._joining = [row for row in self._joining if row not in rows]
            ended = self._taken(rows, scores[torch.tensor([place for _, place in whole], device=self._device)])
            for row in ended:  # first: if one of the others fails, these have ended nevertheless
                self.remove(row)
            for row in rows:
                if row not in ended:
                    self._settle(row)

    def lost(self) -> list[Row]:
        placed = {row for slots in self._slots.values() for row in slots.rows}
        joining = {row for row in self._joining if row.cache is None or len(row.cache.ids) < len(row.prompt)}
        return [row for row in self.rows if row not in placed | joining]

    def _newest(self, slots: Slots) -> Part:
        ids, positions = slots.begin()
        return Part(slots, ids, positions, torch.arange(len(ids), device=self._device))

    def _next_prompts(self) -> list[PromptPart]:
        """The next tokens of rows that join: those that can be begun and ended in this step are run together."""
        left = PROMPT_TOKENS.get(self._device.type, PROMPT_TOKENS_ELSEWHERE)
        together: dict[int, list[tuple[Row, int]]] = {}
        parts = []
        for row in self._joining:
            if left <= 0:
                break
            if row.cache is None:
                row.cache = self._shared(row)
            missing = len(row.prompt) - len(row.cache.ids)
            taken = min(missing, left)
            left -= taken
            if taken == missing and row.cache is self._shared(row):
                together.setdefault(len(row.cache.ids), []).append((row, taken))
            else:
                parts.append(PromptPart(row.cache, [(row, taken)], self._device))
        for rows in together.values():
            cache = rows[0][0].cache
            assert cache is not None, "a row that joins has a cache"
            parts.append(PromptPart(cache, rows, self._device))
        return parts

    def _shared(self, row: Row) -> PrefixCache:
        """The prefix, if the row begins with it and has more."""
        assert self._prefix is not None, "the prefix is run before the first row"
        return self._prefix if self._begins(row) else self._nothing

    def _begins(self, row: Row) -> bool:
        P = len(self._prefix_ids)
        return len(row.prompt) > P and row.prompt[:P] == self._prefix_ids

    def _group(self, row: Row) -> tuple[bool, int]:
        """Whether it begins with a prefix, and the size of its slot."""
        P = len(self._prefix_ids) if self._begins(row) else 0
        return P > 0, slot_size(row.most - P)

    def reserved(self, *more: Row) -> int:
        rows = Counter(map(self._group, (*self.rows, *more)))
        there = {key: slots.capacity for key, slots in self._slots.items()}
        return sum(T * grown(there.get((begins, T), 0), count) for (begins, T), count in rows.items())

    def _settle(self, row: Row) -> None:
        """Give a row whose prompt is run a slot of its size."""
        shared, cache = self._shared(row), row.cache
        assert cache is not None, "its prompt is run"
        P, key = len(shared.ids), self._group(row)
        slots = self._slots.get(key) or Slots(shared, key[1], self._device)
        own = {layer: slice_tokens(pair, P, len(row.prompt)) for layer, pair in cache.layers.items()}
        slots.add(row, own)
        self._slots[key] = slots  # not before: a group without rows has nothing to run
        row.cache = None

    def _taken(self, rows: list[Row], logits: torch.Tensor) -> list[Row]:
        """Give each row its next token. Returns those that have ended."""
        choices = self._chooser.choose(rows, logits)
        return [row for row, choice in zip(rows, choices, strict=True) if not row.take(choice, self._ends)]


class SeparateBatch:
    """For models that cannot be packed: each row by itself, with the cache that the model keeps. Nothing is shared."""

    def __init__(self, chooser: Chooser, ends: Sequence[int], device: torch.device) -> None:
        self.rows: list[Row] = []
        self._chooser, self._ends, self._device = chooser, frozenset(ends), device
        self._pasts: dict[Row, Any] = {}

    def add(self, row: Row) -> None:
        self._chooser.add(row)
        self.rows.append(row)

    def remove(self, row: Row) -> None:
        self.rows.remove(row)
        self._chooser.forget(row)
        self._pasts.pop(row, None)

    def step(self, model: PreTrainedModel) -> None:
        for row in list(self.rows):
            past = self._pasts.get(row)
            ids = [*row.prompt, *row.tokens] if past is None else row.tokens[-1:]
            out = model(
                input_ids=torch.tensor([ids], device=self._device), past_key_values=past, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            self._pasts[row] = getattr(out, "past_key_values", None)
            [choice] = self._chooser.choose([row], out.logits[:, -1])
            if not row.take(choice, self._ends):
                self.remove(row)

    def reserved(self, *more: Row) -> int:
        return 0  # what the model keeps of them is not known before

    def lost(self) -> list[Row]:
        return []


def slot_size(tokens: int) -> int:
    """Tokens of the slot that a row with so many own tokens gets: few sizes, so that rows share groups."""
    size = LEAST_SLOT
    while size < tokens:
        size *= 2
    return size
