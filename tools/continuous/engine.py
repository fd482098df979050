"""A thread that answers rows as they come: a queue, and as many rows at a time as there is room for."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from agent.errors import NesyLoraError
from tools.continuous.batch import Batch, ContinuousBatch, SeparateBatch
from tools.continuous.choosing import Chooser
from tools.continuous.row import Row
from tools.memory_budget import free_memory, is_out_of_memory
from tools.model.backbone import Backbone
from tools.model.composite import rope_switch_length
from tools.packed.decoding import run_prefix
from tools.packed.prefix_cache import PrefixCache
from tools.static.decoding.batch import bytes_per_token

SHARE = 0.3  # of the free memory that keys and values may take
STEPS = 4  # of one model's rows before those of another, if both have some: the adapters are switched between


class QueueFull(NesyLoraError):
    """So many rows wait already that no other is taken."""


class TooLong(NesyLoraError):
    """A row is longer than the model's window, or than memory holds."""


class NoSuchToken(NesyLoraError):
    """A row has no ids, or some that the model has no embedding of."""


class Stopped(NesyLoraError):
    """The engine answers no more rows."""


class Weights(NamedTuple):
    """What answers under a name: an adapter or None, and the ids with which most of its prompts begin."""

    adapter: str | None
    prefix: list[int]


@dataclass
class Counts:
    """What the engine has done so far."""

    steps: int = 0
    rows_stepped: int = 0
    switches: int = 0


class Engine:
    """Answers rows of several models over one base.

    Args:
        backbone: the base, with its adapters.
        models: by name.
        most_rows: rows that are answered at a time.
        most_waiting: rows that wait beyond these.
        longest: most tokens of a row, if fewer than the model's window.
    """

    def __init__(
        self,
        backbone: Backbone,
        models: Mapping[str, Weights],
        *,
        most_rows: int,
        most_waiting: int,
        longest: int | None = None,
    ) -> None:
        self.counts = Counts()
        self.most_waiting = most_waiting
        self._backbone, self._models = backbone, models
        self._most_rows, self._longest = most_rows, longest
        # Not the tokenizer's size: that may know tokens for which the model has no row.
        embeddings = backbone.base.get_input_embeddings().weight
        assert isinstance(embeddings, torch.Tensor), "a model embeds its ids"
        self._ids = len(embeddings)
        self._chooser = Chooser(backbone.base, backbone.ends)
        self._batches: dict[str, Batch] = {name: self._new_batch(weights) for name, weights in models.items()}
        self._waiting: deque[tuple[str, Row]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._budget: int | None = None  # tokens whose keys and values memory has room for
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def _new_batch(self, weights: Weights) -> Batch:
        backbone = self._backbone
        if backbone.packs:
            return ContinuousBatch(self._chooser, backbone.ends, weights.prefix, backbone.device)
        return SeparateBatch(self._chooser, backbone.ends, backbone.device)

    # --- from any thread ---

    @property
    def window(self) -> int:
        """Most tokens of a row, prompt and answer together."""
        switch = rope_switch_length(self._backbone.base.config)
        limits = (self._backbone.window, switch, self._longest)
        return min(limit for limit in limits if limit is not None)

    @property
    def waiting(self) -> int:
        """Rows that are not begun."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Rows that are answered now."""
        return sum(len(batch.rows) for batch in self._batches.values())

    @property
    def room(self) -> int:
        """Most rows that may be not begun now: those that wait, and those that are about to be taken up."""
        return self.most_waiting + max(0, self._most_rows - self.running)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        """Load each adapter, run each prefix, and begin to answer.

        Raises:
            BadInput: an adapter does not fit the base.
        """
        device = self._backbone.device
        for weights in self._models.values():
            with self._backbone.using(weights.adapter) as model, torch.inference_mode():
                if not self._backbone.packs:
                    continue
                probe = run_prefix(model, PrefixCache(), weights.prefix or [0], device)
                self._budget = int(SHARE * free_memory(device) / bytes_per_token(probe.layers))
        self._thread.start()

    def submit(self, name: str, row: Row) -> None:
        """Have a row answered.

        Args:
            name: of the model.

        Raises:
            TooLong: it cannot be answered, however long it waits.
            NoSuchToken: the model cannot read it.
            QueueFull: it could wait too long.
            Stopped: the engine is closed.
        """
        if row.most > self.window:
            raise TooLong(
                f"The prompt has {len(row.prompt)} tokens and the answer may have {row.max_new_tokens}; together they "
                f"may be {self.window} at most."
            )
        alone = self._new_batch(self._models[name])
        if self._budget is not None and alone.reserved(row) > self._budget:
            raise TooLong(
                f"The prompt has {len(row.prompt)} tokens and the answer may have {row.max_new_tokens}; this machine's "
                f"memory has room for {self._budget}."
            )
        if not row.prompt:
            raise NoSuchToken("The prompt has no tokens.")
        if strange := [token for token in row.prompt if not 0 <= token < self._ids]:
            raise NoSuchToken(f"The prompt has the token id {strange[0]}; token ids are from 0 to {self._ids - 1}.")
        with self._changed:
            if self._closed:
                raise Stopped("The server is stopping.")
            if len(self._waiting) >= self.room:
                raise QueueFull(f"{self.most_waiting} requests are waiting already.")
            self._waiting.append((name, row))
            self._changed.notify()

    def close(self) -> None:
        """Answer nothing any more: rows that are not done fail."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    # --- the engine's thread ---

    def _work(self) -> None:
        whole = False
        try:
            while self._wait():
                self._drop_those_gone()
                self._admit()
                for name, batch in self._batches.items():
                    self._steps(name, batch)
            whole = True
        finally:
            with self._changed:
                self._closed = True
                left = [row for _, row in self._waiting]
                self._waiting.clear()
            for row in [*left, *(row for batch in self._batches.values() for row in batch.rows)]:
                row.reader.failed(Stopped("The server is stopping." if whole else "The server failed."))

    def _wait(self) -> bool:
        """Until there is something to do. False: the engine is closed."""
        with self._changed:
            while not (self._closed or self._waiting or self.running):
                self._changed.wait()
            return not self._closed

    def _drop_those_gone(self) -> None:
        with self._changed:
            if any(row.gone.is_set() for _, row in self._waiting):
                self._waiting = deque((name, row) for name, row in self._waiting if not row.gone.is_set())

    def _admit(self) -> None:
        """Begin rows in the order they came, while there is room."""
        if not self._waiting:
            return
        with self._changed:
            while self._waiting and self.running < self._most_rows:
                name, row = self._waiting[0]
                taken = sum(batch.reserved(*[row][: key == name]) for key, batch in self._batches.items())
                if self._budget is not None and taken > self._budget and self.running:
                    return
                self._waiting.popleft()
                try:
                    self._batches[name].add(row)
                except (RuntimeError, ValueError, LookupError, TypeError) as error:
                    row.reader.failed(NesyLoraError(f"This request cannot be begun: {error}"))

    def _steps(self, name: str, batch: Batch) -> None:
        if not batch.rows:
            return
        alone = len(batch.rows) == self.running
        # Inference mode begins inside: an adapter that is read within it could not be switched afterwards.
        with self._backbone.using(self._models[name].adapter) as model, torch.inference_mode():
            self.counts.switches += not alone
            for _ in range(1 if alone else STEPS):
                for row in [row for row in batch.rows if row.gone.is_set()]:
                    batch.remove(row)
                if self._closed or not batch.rows:
                    return
                self.counts.steps += 1
                self.counts.rows_stepped += len(batch.rows)
                try:
                    batch.step(model)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    self._give_up(batch)

    def _give_up(self, batch: Batch) -> None:
        """Memory has run out: rows fail that cannot go on, or the newest; fewer are answered at a time from now on."""
        for row in batch.lost() or batch.rows[-1:]:
            batch.remove(row)
            row.reader.failed(TooLong(f"Memory does not hold this request of {row.most} tokens beside the others."))
        self._most_rows = max(1, self.running)
