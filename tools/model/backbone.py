"""The model under adaptation: loaded once, adapters attached by id, many rows generated or scored at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agent.protocols import Asked, Charge, LanguageModel, Progress, StopEarly
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from tools.adapters.adapted_model import AdaptedModel
from tools.memory_budget import MemoryBudget, is_out_of_memory
from tools.model.asked_rows import AskedRows
from tools.model.chat_template import Renderer, TokenRow
from tools.model.composite import window
from tools.model.generation_config import Constraints, without_settings
from tools.model.row_batches import RowBatches, TooLarge
from tools.packed.decoding import PrefixedRows, decode, run_prefix
from tools.packed.early_stopping import Completions
from tools.packed.packing import common_length, common_prefix, pack, pack_logits
from tools.packed.padding import generate_padded, padded_logits
from tools.packed.prefix_cache import PrefixCache
from tools.packed.support import can_pack
from tools.static.decoding.decoder import StaticDecoder
from tools.static.decoding.static_path import StaticPath


@dataclass
class _Kept:
    """What all views of one model have in common from call to call."""

    prefix_key: tuple[str | None, int] | None = None  # the adapter, and how often adapters were detached before
    prefix: PrefixCache = field(default_factory=PrefixCache)
    memory_budget: MemoryBudget | None = None


class Backbone(AdaptedModel, LanguageModel):
    """A causal language model that answers and scores rows.

    Args:
        model: the base, in evaluation mode, on its device.
        tokenizer: its fast tokenizer.
        name, locate, progress, charge: see `tools.adapters.adapted_model.AdaptedModel`; also for several threads.
        chat_template_kwargs: see `tools.model.chat_template.Renderer`.
        batch_size: rows of one forward pass in generation and scoring. On CUDA generation takes more where memory
            has room for them.
        sharded: see below.

    Attributes:
        render: makes token ids of prompts and rows.
        packs: whether rows are packed, or else padded.
        sharded: whether the base is divided among processes, which then run every pass together; see
            `tools.training.sharding`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        locate: Callable[[str], Path],
        chat_template_kwargs: Mapping[str, object] | None = None,
        batch_size: int = 32,
        sharded: bool = False,
        progress: Progress | None = None,
        charge: Charge | None = None,
    ) -> None:
        super().__init__(model, name=name, locate=locate, progress=progress, charge=charge)
        self.render = Renderer(tokenizer, chat_template_kwargs)
        self.packs = can_pack(model)
        self.sharded = sharded
        self._batches = RowBatches(model, batch_size)
        self._static = StaticPath(model, possible=self.packs)
        self._kept = _Kept()

    @property
    def window(self) -> int:
        """Most tokens of a row, prompt and answer together."""
        return window(self.base.config, self.render.tokenizer)

    @property
    def memory_budget(self) -> MemoryBudget | None:
        """What is known to fit into memory in training; None while nothing has failed to."""
        return self._kept.memory_budget

    @memory_budget.setter
    def memory_budget(self, budget: MemoryBudget) -> None:
        self._kept.memory_budget = budget

    # --- answers ---

    def generate_each(
        self,
        asked: Sequence[Asked],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> list[tuple[list[str | None], Spend]]:
        """As `LanguageModel.generate_each`, without special tokens; rows of several prompts in one batch.

        Texts and charges are those of a call for each prompt: what its rows share counts as read once, even if an
        earlier call had run it. Prompts are answered one after another where that takes no more batches, and on models
        that are not packed.

        Raises:
            BadInput: there are no weights of this adapter, or they do not fit the base.
            NesyLoraError: memory does not hold one row.
        """
        with self._answering(adapter) as (model, decoder):
            questions = AskedRows(asked, self.render)
            rows = questions.rows
            self._progress("answering", 0, len(rows))
            groups = questions.by_prompt(self._fitting(rows, max_new_tokens))
            for number, group in enumerate(groups):
                questions.spends[number] += self._charged(read_tokens=self.cost([rows[place] for place in group]))
            answer = partial(self._answer, model, decoder, questions, adapter, max_new_tokens, stop_early)
            with suppress(TooLarge):
                answer(groups)
            for alone in questions.apart(groups):
                self._kept.prefix = PrefixCache()
                answer(alone)
            done = sum(text is not None for text in questions.texts)
            if done < len(rows):
                self._progress("answering", done, len(rows), f"{len(rows) - done} rows are too long for the model")
        return questions.answers()

    def _answer(
        self,
        model: PreTrainedModel,
        decoder: StaticDecoder | None,
        questions: AskedRows,
        adapter: str | None,
        new: int,
        stop_early: StopEarly | None,
        groups: Sequence[list[int]],
    ) -> None:
        """Answer the rows at these places, a list for each prompt. Raises TooLarge: memory does not hold one row."""
        rows = questions.rows
        prefixes = self._prefix_caches(model, [[rows[place] for place in group] for group in groups], adapter)

        def complete(batch: list[int]) -> tuple[list[list[int]], Completions]:
            parts = questions.by_prompt(batch)
            together = [
                PrefixedRows(prefix, [rows[place] for place in part])
                for prefix, part in zip(prefixes, parts, strict=True)
                if part
            ]
            examples = [questions.examples[place] for part in parts for place in part]
            completions = Completions(examples, self.ends, self.render.output, stop_early)
            self._decode(model, together, completions, new, decoder)
            return parts, completions

        room = lambda own: decoder.rows_that_fit(prefixes, own + new) if decoder else 0  # noqa: E731
        for places, at_least in questions.courses(groups, room, self._batches.count if self.packs else None):
            for _, (parts, completions) in self._batches.run(rows, places, new, complete, at_least):
                for number, generated in enumerate(questions.take(parts, completions.ids)):
                    questions.spends[number] += self._charged(generated_tokens=generated)
                done = sum(text is not None for text in questions.texts)
                self._progress("answering", done, len(rows), f"with adapter {adapter}" if adapter else "")

    @contextmanager
    def _answering(self, adapter: str | None) -> Iterator[tuple[PreTrainedModel, StaticDecoder | None]]:
        """The model with this adapter, and what decodes it in static steps; None: it is decoded eagerly."""
        with self.using(adapter) as model, torch.inference_mode():
            self.base.eval()
            with self._static.ready(adapter) as decoder:
                yield model, decoder

    def _charged(self, **tokens: int) -> Spend:
        """Charge a part of a call's spend, and give it back to be added up."""
        spend = Spend(**tokens)
        self.charge(spend)
        return spend

    def _prefix_caches(
        self, model: PreTrainedModel, groups: Sequence[Sequence[TokenRow]], adapter: str | None
    ) -> list[PrefixCache]:
        """What the rows of each group share, run; what it has in common with others is run once."""
        if not self.packs:
            return [PrefixCache() for _ in groups]
        key = adapter, self._adapters.detached
        kept, self._kept.prefix = self._kept.prefix, PrefixCache()  # if memory runs out now, the next try has more
        caches = [kept if self._kept.prefix_key == key else PrefixCache()]
        for rows in groups:
            ids = common_prefix(rows) if rows else []
            known = [common_length(cache.ids, ids) for cache in caches]
            try:
                caches.append(run_prefix(model, caches[known.index(max(known))], ids, self.device))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise TooLarge(len(ids), 0) from None
        self._kept.prefix_key = key
        self._kept.prefix = next((cache for cache in reversed(caches) if cache.ids), PrefixCache())
        return caches[1:]

    def _decode(
        self,
        model: PreTrainedModel,
        groups: Sequence[PrefixedRows],
        completions: Completions,
        new: int,
        decoder: StaticDecoder | None,
    ) -> None:
        rows = [row for group in groups for row in group.rows]
        constraints = Constraints(self.base, [row.prompt for row in rows], self.ends, new)
        if decoder is not None:
            decoder.decode(groups, completions, constraints, new)
            return
        if self.packs:
            decode(model, groups, completions, constraints, new, self.device)
            return
        with without_settings(self.base):
            generate_padded(model, rows, completions, constraints, self._pad, new, self.device)

    def release_decoder(self, all_of_it: bool = False) -> bool:
        """Give back what decoding keeps for the next answers; unless all is wanted, only if that is much.

        To be called before weights change. Returns whether anything was given back.
        """
        return self._static.release(all_of_it)

    # --- likelihoods ---

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> tuple[list[float | None], Spend]:
        """Mean NLL of each completion `(given, scored)` in nats per token of `scored`, in the order of the examples.

        None, which is no likelihood, for a row beyond the model's window and where there is nothing to score.

        Raises:
            BadInput: there are no weights of this adapter, or they do not fit the base.
            NesyLoraError: memory does not hold one row.
        """
        with self.using(adapter) as model, torch.inference_mode():
            self.base.eval()
            rows = [
                self.render.scored_row(prompt, example, given, scored)
                for example, (given, scored) in zip(examples, completions, strict=True)
            ]
            means: list[float | None] = [None] * len(rows)
            spend = Spend()
            losses_of = lambda batch: self.losses(model, [rows[i] for i in batch])  # noqa: E731
            release = partial(self.release_decoder, all_of_it=True)
            for batch, losses in self._batches.run(rows, self._fitting(rows, 0), 0, losses_of, release=release):
                spend += self._charged(read_tokens=self.cost([rows[i] for i in batch]))
                parts = losses.split([len(rows[i].completion) for i in batch])
                for place, part in zip(batch, parts, strict=True):
                    means[place] = float(part.mean()) if len(part) else None
        return means, spend

    def losses(self, model: PreTrainedModel, rows: Sequence[TokenRow]) -> torch.Tensor:
        """NLL of every completion token, row after row: [N] in nats. Differentiable. What rows share is run once."""
        rows = [row for row in rows if row.completion]
        if not rows:
            return torch.zeros(0, device=self.device)
        targets = torch.tensor([token for row in rows for token in row.completion], device=self.device)
        return cross_entropy(self.logits(model, rows).float(), targets, reduction="none")

    def logits(self, model: PreTrainedModel, rows: Sequence[TokenRow]) -> torch.Tensor:
        """Logits for every completion token, row after row: [N, V]. Every row has a completion."""
        if self.packs:
            return pack_logits(model, pack(rows, self.device))
        return padded_logits(model, rows, self._pad, self.device)

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
