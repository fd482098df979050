"""The model under adaptation: loaded once, adapters attached by id, many rows generated or scored at a time."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from agent.errors import BadInput
from agent.protocols import Progress
from agent.records import Example, Prompt
from tools.decoding import decode
from tools.prefix import Batch, collate, completion_nll, prefix_cache, reach, shared_prefix
from tools.rendering import Renderer, TokenRow

ATTACHED = 4  # adapters kept in memory; an older one is read from disk again when it is wanted


class Backbone:
    """A causal language model with adapters known by id.

    Args:
        model: the base, in evaluation mode, on its device.
        tokenizer: its fast tokenizer.
        name: how the task calls it.
        locate: the folder of an adapter, from its id.
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
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> None:
        self.base = model
        self.name = name
        self.render = Renderer(tokenizer)
        self.reach = reach(model)
        self.generated_tokens = 0
        self.trained_tokens = 0
        self._locate = locate
        self._batch_size = batch_size
        self._progress = progress or (lambda *_: None)
        self._peft: Any = None
        self._attached: OrderedDict[str, None] = OrderedDict()

    @property
    def shares_prefix(self) -> bool:
        """Whether rows of this model can continue from one cache."""
        return self.reach > 0

    # --- adapters ---

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def window(self) -> int:
        """Most tokens of a row, prompt and answer together."""
        return int(getattr(self.base.config, "max_position_embeddings", None) or sys.maxsize)

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
        """Load an adapter's safetensors (of `source`, if its weights are to be continued) and make it active."""
        from peft import PeftModel

        if adapter not in self._attached:
            folder = self._locate(source or adapter)
            if not (folder / "adapter_model.safetensors").is_file():
                raise BadInput(f"no adapter '{source or adapter}' at {folder}")
            try:
                if self._peft is None:
                    self._peft = PeftModel.from_pretrained(self.base, str(folder), adapter, is_trainable=trainable)
                else:
                    self._peft.load_adapter(str(folder), adapter, is_trainable=trainable)
            except (ValueError, RuntimeError) as error:
                raise BadInput(f"the adapter in {folder} does not fit {self.name}: was it made for it?") from error
        self._activate(adapter)

    def create(self, adapter: str, config: Any) -> None:
        """Attach a new adapter made from a peft config, and make it active."""
        from peft import get_peft_model

        if self._peft is None:
            self._peft = get_peft_model(self.base, config, adapter_name=adapter)
        else:
            self._peft.add_adapter(adapter, config)
        self._activate(adapter)

    def detach(self, adapter: str) -> None:
        """Forget an attached adapter; its files stay."""
        if self._attached.pop(adapter, "absent") == "absent":
            return
        if self._attached:
            self._peft.delete_adapter(adapter)
        else:  # peft's wrapper cannot stand without an adapter
            self._peft.unload()
            self._peft = None

    def rank(self, adapter: str) -> int:
        """Of an attached adapter; a continued one has its parent's."""
        return int(self._peft.peft_config[adapter].r)

    def save(self, adapter: str, folder: Path) -> None:
        """Write an attached adapter as safetensors, with peft's adapter_config.json, straight into `folder`."""
        import json

        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = get_peft_model_state_dict(self._peft, adapter_name=adapter)
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in weights.items()},
            str(folder / "adapter_model.safetensors"),
            metadata={"format": "pt"},
        )
        config = self._peft.peft_config[adapter].to_dict() | {"inference_mode": True}
        text = json.dumps(
            config, indent=2, default=lambda value: sorted(value) if isinstance(value, set) else str(value)
        )
        (folder / "adapter_config.json").write_text(text)

    def _activate(self, adapter: str) -> None:
        self._attached[adapter] = None
        self._attached.move_to_end(adapter)
        self._peft.set_adapter(adapter)
        while len(self._attached) > ATTACHED:
            self.detach(next(iter(self._attached)))

    # --- what the model says ---

    def generate(
        self, prompt: Prompt, examples: Sequence[Example], *, adapter: str | None, max_new_tokens: int
    ) -> list[str]:
        """One greedy completion per example, in order, without special tokens; "" for one beyond the model's window."""
        rows = [TokenRow(self.render.prompt_ids(prompt, example), []) for example in examples]
        texts: list[str] = [""] * len(rows)
        with self.using(adapter) as model, torch.inference_mode():
            self.base.eval()
            done = 0
            self._progress("answering", done, len(rows))
            for indices, batch, cache in self._batches(model, rows, max_new_tokens):
                outputs = self._decode(model, batch, cache, max_new_tokens)
                for index, ids in zip(indices, outputs, strict=True):
                    texts[index] = self.render.text_of(ids)
                self.generated_tokens += sum(len(ids) + 1 for ids in outputs)
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
    ) -> list[float]:
        """Mean NLL of each completion `(given, scored)` in nats per token of `scored`, in the order of the examples.

        0 for a row beyond the model's window.
        """
        rows = [
            self.render.scored_row(prompt, example, given, scored)
            for example, (given, scored) in zip(examples, completions, strict=True)
        ]
        values = [0.0] * len(rows)
        with self.using(adapter) as model, torch.inference_mode():
            self.base.eval()
            for indices, batch, _ in self._batches(model, rows):
                sums = completion_nll(model, self.base.config, batch, self.shares_prefix).sum(dim=1)
                for index, total in zip(indices, sums.tolist(), strict=True):
                    values[index] = total / max(len(rows[index].completion), 1)
        return values

    def _batches(self, model: Any, rows: Sequence[TokenRow], new: int = 0) -> Iterator[tuple[list[int], Batch, Any]]:
        """Rows sorted by length, so that little is padding; where `new` tokens follow, the cache of what all share."""
        prefix = shared_prefix(rows, self.reach, new) if rows else []
        cache = prefix_cache(model, self.base.config, prefix, self.device) if new and self.shares_prefix else None
        fitting = [index for index in range(len(rows)) if len(rows[index]) + new <= self.window]
        order = sorted(fitting, key=lambda index: len(rows[index]))
        for start in range(0, len(order), self._batch_size):
            indices = order[start : start + self._batch_size]
            yield indices, collate([rows[i] for i in indices], prefix, self._pad, self.device), cache

    def _decode(self, model: Any, batch: Batch, cache: Any, max_new_tokens: int) -> list[list[int]]:
        if cache is not None:
            return decode(model, batch, cache, self.ends, max_new_tokens)
        output = model.generate(
            input_ids=batch.own,
            attention_mask=batch.mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.ends,
            pad_token_id=self._pad,
        )[:, batch.own.shape[1] :]
        return [list(_until(row, self.ends)) for row in output.tolist()]

    @property
    def ends(self) -> list[int]:
        """Ids that end an answer: the template's end of turn, and what the model's generation config names."""
        named = self.base.generation_config.eos_token_id if self.base.generation_config else None
        named = named if isinstance(named, list) else [named]
        return sorted({self.render.end, *(i for i in named if i is not None)})

    @property
    def _pad(self) -> int:
        return int(self.render.tokenizer.pad_token_id or self.render.end)


def _until(ids: Sequence[int], ends: Sequence[int]) -> Iterator[int]:
    for value in ids:
        if value in ends:
            return
        yield value
