"""The model under adaptation: loaded once, adapters attached by id, many rows generated or scored at a time."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers

from agent.errors import BadInput, NesyLoraError, StepFailed
from agent.protocols import Progress, Settled
from agent.records.examples import Example, Prompt
from tools.model.chat_template import Renderer, TokenRow
from tools.model.composite import text_only, window
from tools.model.generation_config import Constraints, without
from tools.packed.attention import Trunk
from tools.packed.decoding import decode, grow
from tools.packed.early_stopping import Answers
from tools.packed.packing import can_pack, common_prefix, completion_nll, pack
from tools.packed.padding import generate_padded, in_company, padded_nll
from tools.training.adapters import check_base_weights, check_files, strip, write
from tools.training.memory_budget import MemoryBudget, is_out_of_memory

T = TypeVar("T")

ATTACHED = 4  # adapters kept in memory; an older one is read from disk again when it is wanted


class Backbone:
    """A causal language model with adapters known by id.

    Args:
        model: the base, in evaluation mode, on its device.
        tokenizer: its fast tokenizer.
        name: how the task calls it.
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
        self._trunk: tuple[str | None, Trunk] = (None, Trunk())
        self.generated_tokens = 0
        self.read_tokens = 0  # what rows share is counted once, whether or not it had been run before
        self.trained_tokens = 0
        self.memory_budget: MemoryBudget | None = None  # learned where a training ran out of memory
        self._locate = locate
        self._batch_size = batch_size
        self._progress = progress or (lambda *_: None)
        self._peft: Any = None
        self._attached: OrderedDict[str, None] = OrderedDict()

    # --- adapters ---

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def window(self) -> int:
        """Most tokens of a row, prompt and answer together."""
        return window(self.base.config, self.render.tokenizer)

    @property
    def model(self) -> Any:
        """The base, inside peft's wrapper once an adapter has been attached."""
        return self._peft or self.base

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[Any]:
        """The model with this adapter active, or the bare base for None. The base is never reloaded.

        Raises:
            BadInput: there are no weights of this id, or they do not fit the base.
        """
        if adapter is None:
            if self._peft is None:
                yield self.base
            else:
                with self._peft.disable_adapter():
                    yield self._peft
            return
        self.attach(adapter)
        yield self._peft

    def attach(self, adapter: str, source: str | None = None, trainable: bool = False) -> None:
        """Load an adapter's safetensors (of `source`, if its weights are to be continued) and make it active.

        Raises:
            BadInput: there are no weights of this id, they do not fit the base, or would change it.
        """
        if adapter not in self._attached:
            folder = self._locate(source or adapter)
            if not (folder / "adapter_model.safetensors").is_file():
                raise BadInput(f"no adapter '{source or adapter}' at {folder}")
            kind = check_files(folder)
            check_base_weights(folder, self.base)
            if self._peft is not None and kind != self._peft.peft_type:  # peft has one kind at a time
                self._detach_all()
            try:
                self._read(folder, adapter, trainable)
            except (ValueError, RuntimeError, LookupError) as error:
                raise BadInput(f"the adapter in {folder} does not fit {self.name}: was it made for it?") from error
        self._activate(adapter)

    def _read(self, folder: Path, adapter: str, trainable: bool) -> None:
        from peft import PeftModel

        with self._whole_or_none():
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self.base, str(folder), adapter, is_trainable=trainable)
            else:
                self._peft.load_adapter(str(folder), adapter, is_trainable=trainable)

    def create(self, adapter: str, config: Any) -> None:
        """Attach a new adapter made from a peft config, and make it active. Raises what peft raises."""
        from peft import get_peft_model

        config = text_only(self.base, config)
        with self._whole_or_none():
            if self._peft is None:
                self._peft = get_peft_model(self.base, config, adapter_name=adapter)
            else:
                self._peft.add_adapter(adapter, config)
        self._activate(adapter)

    @contextmanager
    def _whole_or_none(self) -> Iterator[None]:
        """What peft has made of an adapter before it fails does not stay; adapters on disk are read again."""
        try:
            yield
        except BaseException:
            self._detach_all()
            raise

    def _detach_all(self) -> None:
        strip(self.base)
        self._peft = None
        self._attached.clear()
        self._trunk = None, Trunk()

    def detach(self, adapter: str) -> None:
        """Forget an attached adapter; its files stay."""
        if self._attached.pop(adapter, "absent") == "absent":
            return
        self._trunk = None, Trunk()  # of an adapter that may come back with other weights
        if self._attached:
            self._peft.delete_adapter(adapter)
        else:  # peft's wrapper cannot stand without an adapter
            self._detach_all()

    def rank(self, adapter: str) -> int:
        """Of an attached adapter; a continued one has its parent's."""
        return int(self._peft.peft_config[adapter].r)

    def save(self, adapter: str, folder: Path) -> None:
        """Write an attached adapter as safetensors, with peft's adapter_config.json, straight into `folder`."""
        write(self._peft, adapter, folder)

    def _activate(self, adapter: str) -> None:
        from tools.training.fast_lora import use_fast_lora

        if adapter not in self._attached:  # its layers are new
            use_fast_lora(self._peft)
        self._attached[adapter] = None
        self._attached.move_to_end(adapter)
        self._peft.set_adapter(adapter)
        while len(self._attached) > ATTACHED:
            self.detach(next(iter(self._attached)))

    # --- what the model says ---

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        settled: Settled | None = None,
    ) -> list[str | None]:
        """One greedy completion per example, in order, without special tokens; None for one beyond the model's window.

        A completion ends early where `settled` says so of its beginning.
        """
        rows = [TokenRow(self.render.prompt_ids(prompt, example), []) for example in examples]
        texts: list[str | None] = [None] * len(rows)
        with self.using(adapter) as model, torch.inference_mode():
            self.base.eval()
            done = 0
            self._progress("answering", done, len(rows))
            fitting = [rows[i] for i in self._fitting(rows, max_new_tokens)]
            self.read_tokens += self.cost(fitting)
            trunk = self._trunk_of(model, fitting, adapter)

            def answer(some: list[int]) -> Answers:
                answers = Answers([examples[i] for i in some], self.ends, self.render.output, settled)
                self._decode(model, [rows[i] for i in some], trunk, answers, max_new_tokens)
                return answers

            for indices, answers in self._in_batches(rows, max_new_tokens, answer):
                for index, ids in zip(indices, answers.ids, strict=True):
                    texts[index] = self.render.output(ids)
                self.generated_tokens += sum(len(ids) + 1 for ids in answers.ids)
                done += len(indices)
                self._progress("answering", done, len(rows), f"with adapter {adapter}" if adapter else "")
            if done < len(rows):
                self._progress("answering", done, len(rows), f"{len(rows) - done} rows are too long for the model")
        return texts

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
        values: list[float | None] = [None] * len(rows)
        with self.using(adapter) as model, torch.inference_mode():
            self.base.eval()
            losses_of = lambda some: self.losses(model, [rows[i] for i in some])  # noqa: E731
            for indices, losses in self._in_batches(rows, 0, losses_of):
                self.read_tokens += self.cost([rows[i] for i in indices])
                parts = losses.split([len(rows[i].completion) for i in indices])
                for index, part in zip(indices, parts, strict=True):
                    values[index] = float(part.mean()) if len(part) else None
        return values

    def losses(self, model: Any, rows: Sequence[TokenRow]) -> torch.Tensor:
        """NLL of every completion token, row after row: [S] in nats. Differentiable. What rows share is run once."""
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

    def _in_batches(
        self, rows: Sequence[TokenRow], new: int, run: Callable[[list[int]], T]
    ) -> Iterator[tuple[list[int], T]]:
        """Run the rows that the model's window has room for, in batches of like length; halved where memory runs out.

        Yields:
            The places of a batch's rows, and what `run` made of them.
        """
        waiting = sorted(self._fitting(rows, new), key=lambda index: len(rows[index]))
        while waiting:
            indices = waiting[: self._batch_size]
            indices = indices[: in_company(self.base, [len(rows[index]) + new for index in indices])]
            try:
                outcome = run(indices)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if len(indices) == 1:
                    raise _no_room(len(rows[indices[0]]), new) from None
                self._batch_size = len(indices) // 2
                continue
            yield indices, outcome
            waiting = waiting[len(indices) :]

    def _fitting(self, rows: Sequence[TokenRow], new: int) -> list[int]:
        """Places of the rows that, with so many new tokens, stay within the model's window."""
        return [index for index, row in enumerate(rows) if len(row) + new <= self.window]

    def _trunk_of(self, model: Any, rows: Sequence[TokenRow], adapter: str | None) -> Trunk:
        """What these rows share, run; as far as the last rows asked of this adapter shared it too, it was run then."""
        if not self.packs or not rows:
            return Trunk()
        last, trunk = self._trunk
        prefix = common_prefix(rows)
        try:
            trunk = grow(model, trunk if last == adapter else Trunk(), prefix, self.device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise _no_room(len(prefix), 0) from None
        self._trunk = adapter, trunk
        return trunk

    def _decode(self, model: Any, rows: Sequence[TokenRow], trunk: Trunk, answers: Answers, new: int) -> None:
        constraints = Constraints(self.base, [row.prompt for row in rows], self.ends, new)
        if self.packs:
            decode(model, rows, trunk, answers, constraints, new, self.device)
            return
        with without(self.base):
            generate_padded(model, rows, answers, constraints, self._pad, new, self.device)

    @property
    def ends(self) -> list[int]:
        """Ids that end an answer: the template's end of turn, and what the model's generation config names."""
        named = self.base.generation_config.eos_token_id if self.base.generation_config else None
        named = named if isinstance(named, list) else [named]
        return sorted({self.render.end, *(i for i in named if i is not None)})

    @property
    def _pad(self) -> int:
        return int(self.render.tokenizer.pad_token_id or self.render.end)


def _no_room(tokens: int, new: int) -> NesyLoraError:
    return NesyLoraError(
        f"Memory does not hold one row of {tokens} tokens and {new} new ones. Lower generation.max_new_tokens, or take "
        "a smaller model."
    )
