"""The model under adaptation: loaded once, adapters attached by id, many rows generated or scored at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from agent.errors import StepFailed
from agent.protocols import Progress, StopEarly
from agent.records.examples import Example, Prompt
from tools.model.attached_adapters import AttachedAdapters
from tools.model.chat_template import Renderer, TokenRow
from tools.model.composite import window
from tools.model.generation_config import Constraints, without_settings
from tools.model.row_batches import RowBatches, too_large
from tools.model.static_path import StaticPath
from tools.packed.decoding import decode, run_prefix
from tools.packed.early_stopping import Completions
from tools.packed.packing import common_prefix, completion_nll, pack
from tools.packed.padding import generate_padded, padded_nll
from tools.packed.prefix_cache import PrefixCache
from tools.packed.support import can_pack
from tools.static.decoding import StaticDecoder
from tools.training.memory_budget import Room, ran_out


class Backbone:
    """A causal language model with adapters known by id. Satisfies `agent.protocols.LanguageModel`.

    Args:
        model: the base, in evaluation mode, on its device.
        tokenizer: its fast tokenizer.
        name: what the task calls it.
        locate: the folder of an adapter, from its id.
        chat_template_kwargs: see `tools.model.chat_template.Renderer`.
        batch_size: rows of one forward pass in generation and scoring.
        progress: told while rows are generated.
    """

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        *,
        name: str,
        locate: Callable[[str], Path],
        chat_template_kwargs: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> None:
        self.base = model
        self.name = name
        self.render = Renderer(tokenizer, chat_template_kwargs)
        self.packs = can_pack(model)
        self.generated_tokens = 0
        self.read_tokens = 0  # what rows share is counted once, whether or not it had been run before
        self.trained_tokens = 0
        self.room: Room | None = None  # what is known to fit into memory in training, once something did not
        self._adapters = AttachedAdapters(model, name)
        self._batches = RowBatches(model, batch_size)
        self._static = StaticPath(model, possible=self.packs)
        self._prefix: tuple[tuple[str | None, int] | None, PrefixCache] = (None, PrefixCache())
        self._locate = locate
        self._progress = progress or (lambda *_: None)

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def window(self) -> int:
        """Most tokens of a row, prompt and answer together."""
        return window(self.base.config, self.render.tokenizer)

    # --- adapters ---

    @property
    def model(self) -> Any:
        """The base, inside peft's wrapper once an adapter has been attached."""
        return self._adapters.model

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[Any]:
        """The model with this adapter active, or the bare base for None. The base is never reloaded.

        Raises:
            BadInput: there are no weights of this id, or they do not fit the base.
        """
        with self._adapters.using(adapter, None if adapter is None else self._locate(adapter)) as model:
            yield model

    def attach(self, adapter: str, source: str | None = None, trainable: bool = False) -> None:
        """Load an adapter's safetensors (of `source`, if its weights are to be continued) and make it active.

        Raises:
            BadInput: there are no weights of this id, they do not fit the base, or would change it.
        """
        self._adapters.attach(
            adapter, self._locate(adapter), source=None if source is None else self._locate(source), trainable=trainable
        )

    def create(self, adapter: str, config: Any) -> None:
        """Attach a new adapter made from a peft config, and make it active. Raises what peft raises."""
        self._adapters.create(adapter, self._locate(adapter), config)

    def detach(self, adapter: str) -> None:
        """Forget an attached adapter; its files stay."""
        self._adapters.detach(adapter)

    def rank(self, adapter: str) -> int:
        """Rank of an attached adapter; one that continues another has the other's."""
        return self._adapters.rank(adapter)

    def save(self, adapter: str, folder: Path) -> None:
        """Write an attached adapter as safetensors, with peft's adapter_config.json, straight into `folder`."""
        self._adapters.save(adapter, folder)

    # --- answers ---

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> list[str | None]:
        """One greedy completion per example, in order, without special tokens; None for one beyond the model's window.

        A completion may end where `stop_early` allows it.
        """
        rows = [TokenRow(ids, []) for ids in self.render.prompts_ids(prompt, examples)]
        texts: list[str | None] = [None] * len(rows)
        with self.using(adapter) as model, torch.inference_mode(), self._static.ready(adapter) as decoder:
            self.base.eval()
            done = 0
            self._progress("answering", done, len(rows))
            fitting = self._fitting(rows, max_new_tokens)
            self.read_tokens += self.cost([rows[place] for place in fitting])
            prefix = self._prefix_cache(model, [rows[place] for place in fitting], adapter)

            def answer(batch: list[int]) -> Completions:
                completions = Completions([examples[i] for i in batch], self.ends, self.render.output, stop_early)
                self._decode(model, [rows[i] for i in batch], prefix, completions, max_new_tokens, decoder)
                return completions

            longest = max((len(rows[place]) for place in fitting), default=0) - len(prefix.ids)
            at_least = decoder.rows_that_fit(prefix, longest + max_new_tokens) if decoder else 0
            for batch, completions in self._batches.run(rows, fitting, max_new_tokens, answer, at_least):
                for place, ids in zip(batch, completions.ids, strict=True):
                    texts[place] = self.render.output(ids)
                self.generated_tokens += sum(len(ids) + 1 for ids in completions.ids)
                done += len(batch)
                self._progress("answering", done, len(rows), f"with adapter {adapter}" if adapter else "")
            if done < len(rows):
                self._progress("answering", done, len(rows), f"{len(rows) - done} rows are too long for the model")
        return texts

    def _prefix_cache(self, model: Any, rows: Sequence[TokenRow], adapter: str | None) -> PrefixCache:
        """What these rows share, run; as far as the last rows of the same weights shared it, it is taken from them."""
        if not self.packs or not rows:
            return PrefixCache()
        key = adapter, self._adapters.detached
        last, cache = self._prefix
        ids = common_prefix(rows)
        try:
            cache = run_prefix(model, cache if last == key else PrefixCache(), ids, self.device)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            raise too_large(len(ids), 0) from None
        self._prefix = key, cache
        return cache

    def _decode(
        self, model: Any, rows: Sequence[TokenRow], prefix: PrefixCache, completions: Completions, new: int,
        decoder: StaticDecoder | None,
    ) -> None:  # fmt: skip
        constraints = Constraints(self.base, [row.prompt for row in rows], self.ends, new)
        if decoder is not None:
            decoder.decode(rows, prefix, completions, constraints, new)
            return
        if self.packs:
            decode(model, rows, prefix, completions, constraints, new, self.device)
            return
        with without_settings(self.base):
            generate_padded(model, rows, completions, constraints, self._pad, new, self.device)

    def release_decoder(self, all_of_it: bool = False) -> None:
        """Give back what decoding keeps for the next answers; unless all is wanted, only if that is much."""
        self._static.release(all_of_it)

    # --- likelihoods ---

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> list[float | None]:
        """Mean NLL of each completion `(given, scored)` in nats per token of `scored`, in the order of the examples.

        None, which is no likelihood, for a row beyond the model's window and where there is nothing to score.
        """
        rows = [
            self.render.scored_row(prompt, example, given, scored)
            for example, (given, scored) in zip(examples, completions, strict=True)
        ]
        means: list[float | None] = [None] * len(rows)
        with self.using(adapter) as model, torch.inference_mode():
            self.base.eval()
            losses_of = lambda batch: self.losses(model, [rows[i] for i in batch])  # noqa: E731
            for batch, losses in self._batches.run(rows, self._fitting(rows, 0), 0, losses_of):
                self.read_tokens += self.cost([rows[i] for i in batch])
                parts = losses.split([len(rows[i].completion) for i in batch])
                for place, part in zip(batch, parts, strict=True):
                    means[place] = float(part.mean()) if len(part) else None
        return means

    def losses(self, model: Any, rows: Sequence[TokenRow]) -> torch.Tensor:
        """NLL of every completion token, row after row: [N] in nats. Differentiable. What rows share is run once."""
        rows = [row for row in rows if row.completion]
        if not rows:
            return torch.zeros(0, device=self.device)
        if self.packs:
            return completion_nll(model, pack(rows, self.device), rows)
        return padded_nll(model, rows, self._pad, self.device)

    @contextmanager
    def recomputing(self, wanted: bool) -> Iterator[None]:
        """Activations recomputed in the backward pass instead of kept (gradient checkpointing), if wanted."""
        if not wanted:
            yield
            return
        if not self.base.supports_gradient_checkpointing:
            raise StepFailed(
                f"memory does not hold a training row of {self.name}, which cannot recompute its activations; lower "
                "lora.max_tokens or lora.rank"
            )
        self.base.gradient_checkpointing_enable({"use_reentrant": False})
        try:
            yield
        finally:
            self.base.gradient_checkpointing_disable()

    def cost(self, rows: Sequence[TokenRow]) -> int:
        """Tokens that `losses` runs for these rows."""
        shared = len(common_prefix(rows)) if self.packs and rows else 0
        return sum(map(len, rows)) - shared * (len(rows) - 1)

    # --- rows ---

    def _fitting(self, rows: Sequence[TokenRow], new: int) -> list[int]:
        """Places of the rows that stay within the model's window with `new` more tokens."""
        return [place for place, row in enumerate(rows) if len(row) + new <= self.window]

    @property
    def ends(self) -> list[int]:
        """Ids that end an answer: the template's end of turn, and what the model's generation config names."""
        named = self.base.generation_config.eos_token_id if self.base.generation_config else None
        named = named if isinstance(named, list) else [named]
        return sorted({self.render.end, *(i for i in named if i is not None)})

    @property
    def _pad(self) -> int:
        return int(self.render.tokenizer.pad_token_id or self.render.end)
