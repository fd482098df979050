"""What is served: pairs of prompt and adapter by name, from bundles and runs, over one base."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from agent.config.generation import require_weights
from agent.errors import BadInput
from agent.protocols import Retriever
from agent.records.examples import Example, Prompt, Turn
from agent.records.served import ServedMessage
from eval.tasks.task import load_config
from export.loaded import Bundle
from export.manifest import FILE
from graphs.context import Context
from graphs.services.run import RunServices
from graphs.serving import best_pair
from memory.run.folder import RunFolder
from tools.continuous.engine import Weights
from tools.model import embedded
from tools.model.backbone import Backbone
from tools.model.chat_template import Renderer
from tools.model.loading import dtype_name, load_model, pick_device
from tools.packed.packing import common_length
from ui.serve.faults import Fault

if TYPE_CHECKING:
    from agent.protocols import Progress

SYSTEM = ("system", "developer")
_looking_up = Lock()  # retrievers and their embedder are for one thread at a time


class Base(NamedTuple):
    """What decides which weights are loaded, and how they compute."""

    model: str
    dtype: str
    device: str
    qlora: bool = False


@dataclass(frozen=True, eq=False)
class Pair:
    """A prompt and an adapter, or none, under a name.

    Attributes:
        task: its name, which files of a bundle are called after.
        adapter: its folder.
        max_new_tokens: of an answer, as it was measured.
        source: the bundle or the run, for people to read.
        engine: what answered in the run while it was measured.
    """

    name: str
    task: str
    base: Base
    prompt: Prompt
    retriever: Retriever | None
    adapter: Path | None
    max_new_tokens: int
    switches: dict[str, object]
    source: Path
    engine: str = "own"


class Prepared(NamedTuple):
    """A prompt's ids, and whether the client brought a prompt of its own."""

    ids: list[int]
    own_prompt: bool


class Served:
    """A pair that answers.

    Args:
        render: of the base's tokenizer, with the pair's switches.
        adapter: its id on the base.
    """

    def __init__(self, pair: Pair, render: Renderer, adapter: str | None) -> None:
        self.name, self.prompt, self.max_new_tokens = pair.name, pair.prompt, pair.max_new_tokens
        self.pair, self.render, self._adapter = pair, render, adapter
        self.created = int(time.time())

    @cached_property
    def weights(self) -> Weights:
        fixed = self.prompt.model_copy(update={"retrieval": None})
        first, second = (
            self.render.prompt_ids(fixed, Example(name="user:1", question=question, answer=""))
            for question in ("Which?", "3 a")
        )
        return Weights(self._adapter, first[: common_length(first, second)])

    def prepared(self, messages: Sequence[ServedMessage]) -> Prepared:
        """The ids of a conversation, with the refined prompt around its last question.

        As the exported chat template has it (`export.chat_template`): messages that bring a system text of their own,
        or the prompt already, are taken as they are.

        Raises:
            Fault: it is no conversation that ends with a question.
            NesyLoraError: the prompt retrieves, and texts cannot be embedded here.
        """
        system = "".join(message.content for message in messages[:1] if message.role in SYSTEM)
        own_system = messages[0].role in SYSTEM
        turns = messages[1:] if own_system else messages
        for place, message in enumerate(turns, own_system):
            if message.role in SYSTEM:
                raise Fault(400, "a system message can only be the first one", param=f"messages.{place}.role")
        if not turns or turns[-1].role != "user":
            raise Fault(400, "the last message must be the user's: it is what is answered", param="messages")
        own = own_system or self._holds_it_already(turns)
        asked = Example(
            name="user:1", question=turns[-1].content, answer="",
            turns=tuple(Turn(role=turn.role, content=turn.content) for turn in turns[:-1]),
        )  # fmt: skip
        prompt = Prompt(system=system) if own else self.prompt
        if prompt.retrieval:
            assert self.pair.retriever is not None, "a prompt that retrieves comes with a retriever"
            with _looking_up:
                prompt, [asked] = self.pair.retriever.resolved(prompt, [asked])
        return Prepared(self.render.prompt_ids(prompt, asked), own)

    def _holds_it_already(self, turns: Sequence[ServedMessage]) -> bool:
        """Whether messages without a system text are those that `nesylora.messages` gives."""
        prompt = self.prompt
        if prompt.system:
            return False
        if prompt.demos:
            return turns[0].content == prompt.ask(prompt.demos[0].question)
        before, _, after = prompt.template.partition("{question}")
        last = turns[-1].content
        if not (last.startswith(before) and last.endswith(after)):
            return False
        return bool(before or after) or self._shows_retrieved(turns)

    def _shows_retrieved(self, turns: Sequence[ServedMessage]) -> bool:
        """Whether turns begin with just what is retrieved for the last question.

        A train row alone does not tell: it may be what a user asked, and the model answered as it had learned.
        """
        if not self.pair.retriever or len(turns) < 3:
            return False
        asked = Example(name="user:1", question=turns[-1].content, answer="")
        with _looking_up:
            prompt, [asked] = self.pair.retriever.resolved(self.prompt, [asked])
        shown = Renderer.messages(prompt, asked)[:-1]
        begin = [(turn.role, turn.content) for turn in turns[: len(shown)]]
        return bool(shown) and begin == [(message["role"], message["content"]) for message in shown]

    def text_ids(self, text: str) -> list[int]:
        """The ids of a text that is continued as it is, with the start of text if the tokenizer adds one."""
        return list(self.render.tokenizer(text)["input_ids"])

    def text_of(self, ids: list[int]) -> str:
        """The text of ids that continue a text: its white space is part of it."""
        decoded = self.render.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(decoded)


def read_pairs(sources: Sequence[str], runs: Path, base: str | None) -> list[Pair]:
    """The pairs that are to be served.

    Args:
        sources: bundles and runs, as paths or names of runs; `NAME=…` gives it a name of its own.
        runs: where runs are looked for by name.
        base: a hub name or folder of the base, in place of what bundles name; runs keep theirs.

    Raises:
        BadInput: one is neither, has no base here, or they do not fit together.
    """
    pairs: list[Pair] = []
    for source in sources:
        name, given, path = source.rpartition("=") if not Path(source).exists() else ("", "", source)
        pair = _pair(path, runs, base, name if given else None)
        for other in pairs:
            if other.name == pair.name:
                raise BadInput(
                    f"{other.source} and {pair.source} would both be called {pair.name}: name them, as in first="
                    f"{other.source} second={pair.source}"
                )
            if other.base != pair.base:
                raise BadInput(
                    f"{other.name} is over {_said(other.base)}, {pair.name} over {_said(pair.base)}: one server has "
                    "one base. Serve them on two ports."
                )
        pairs.append(pair)
    return pairs


def load(pairs: Sequence[Pair], progress: "Progress") -> tuple[Backbone, list[Served]]:
    """The base with the pairs' adapters, and the pairs as they answer.

    The adapter of a single pair is merged into the base, where that changes no answer: it answers faster.

    Raises:
        BadInput: the base cannot be loaded.
    """
    base = pairs[0].base
    model, tokenizer = load_model(
        base.model, device=base.device, dtype=base.dtype, qlora=base.qlora, chat_template_kwargs=pairs[0].switches,
        progress=progress,
    )  # fmt: skip
    merges = len(pairs) == 1 and _can_merge(pairs[0])
    if merges:
        from export.formats.merging import merge

        assert pairs[0].adapter is not None, "what can be merged is there"
        probe = Renderer(tokenizer, pairs[0].switches).prompt_ids(Prompt(), Example(name="", question="q", answer=""))
        model = merge(model, pairs[0].adapter, probe)
    ids = {pair: f"served{number}" for number, pair in enumerate(pairs) if pair.adapter and not merges}
    folders = {adapter: pair.adapter for pair, adapter in ids.items() if pair.adapter}
    backbone = Backbone(model, tokenizer, name=base.model, locate=lambda adapter: folders[adapter])
    return backbone, [Served(pair, Renderer(tokenizer, pair.switches), ids.get(pair)) for pair in pairs]


def _can_merge(pair: Pair) -> bool:
    """Whether the adapter may be added to the base: alone on it, a plain LoRA, in numbers fine enough.

    In half precision the sum would be rounded to other answers than those that were measured.
    """
    if pair.adapter is None or pair.base.dtype != "float32" or pair.base.qlora:
        return False
    config = json.loads((pair.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    special = ("use_dora", "modules_to_save", "target_parameters", "trainable_token_indices")
    plain = config["peft_type"] == "LORA" and config.get("bias", "none") == "none"
    return plain and not any(config.get(name) for name in special)


def _pair(source: str, runs: Path, base: str | None, name: str | None) -> Pair:
    path = Path(source)
    if (path / FILE).is_file():
        return _of_bundle(Bundle(path, base), name)
    for run in (path, runs / source):
        if (run / "run.json").is_file():
            return _of_run(RunFolder.open(run), name)
    raise BadInput(f"there is neither a bundle nor a run in {source}. Make a bundle with: nesylora export RUN")


def _of_bundle(bundle: Bundle, name: str | None) -> Pair:
    manifest = bundle.manifest
    return Pair(
        name=name or manifest.task,
        task=manifest.task,
        base=_base(bundle.source, manifest.base.dtype),
        prompt=bundle.prompt,
        retriever=bundle.retriever if bundle.prompt.retrieval else None,
        adapter=bundle.folder if manifest.adapter and not bundle.whole else None,
        max_new_tokens=manifest.max_new_tokens,
        switches=dict(manifest.switches),
        source=bundle.folder,
    )


def _of_run(run: RunFolder, name: str | None) -> Pair:
    best = best_pair(run)
    with run.as_begun():
        config = load_config(run.task_file)
    require_weights(config, "Serving a run")
    prompt = run.prompt(best.prompt)
    return Pair(
        name=name or config.name,
        task=config.name,
        base=_base(config.model, config.dtype, config.device, config.lora.qlora),
        prompt=prompt,
        retriever=RunServices(Context(run=str(run.path))).retriever if prompt.retrieval else None,
        adapter=run.adapter_folder(best.adapter) if best.adapter else None,
        max_new_tokens=config.generation.max_new_tokens,
        switches=dict(config.chat_template_kwargs),
        source=run.path,
        engine=config.generation.engine,
    )


def _base(model: str, dtype: str, device: str = "auto", qlora: bool = False) -> Base:
    device = pick_device(device)
    if model != embedded.NAME and (folder := Path(model).expanduser()).is_dir():
        model = str(folder.resolve())  # named in another way, it is still the same base
    return Base(model, dtype_name(dtype, device), device, qlora)


def _said(base: Base) -> str:
    return f"{base.model} ({base.dtype} on {base.device})"
