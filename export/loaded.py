"""A bundle in use, on this machine or another: no run folder and no task's rows are needed."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BadInput
from agent.protocols import Retriever
from agent.records.examples import Demo, Example, Prompt
from export.manifest import Manifest, read_manifest
from graphs.serving import asked
from memory.storage.disk import whole_lines
from memory.storage.records import parse_record, read_record

if TYPE_CHECKING:
    from tools.model.backbone import Backbone


class AsShown:
    """Rows that stand in the wanted form already: what a retriever needs of a task's scorers."""

    def show(self, answer: str) -> str:
        return answer

    def full_marks(self, output: str, example: Example) -> bool:
        return True


class Bundle:
    """A bundle that `nesylora export` wrote.

    Args:
        folder: of the bundle.
        base: a hub name or folder of the base, in place of the one that the bundle names.

    Raises:
        BadInput: there is no bundle, or nothing says where its base is.
    """

    def __init__(self, folder: Path, base: str | None = None) -> None:
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)
        self.prompt = read_record(Prompt, folder / "prompt.json")
        self._base = base

    def __repr__(self) -> str:
        return f"Bundle({self.manifest.name!r}, base={self.manifest.base.name!r})"

    def messages(self, question: str, history: Sequence[Mapping[str, str]] = ()) -> list[dict[str, str]]:
        """The whole prompt around a question, with what it retrieves, as chat messages in OpenAI's form.

        Args:
            history: earlier turns of the conversation, oldest first, in the same form.

        Raises:
            BadInput: a turn is neither the user's nor the assistant's.
            NesyLoraError: the prompt retrieves, and texts cannot be embedded here.
        """
        from tools.model.chat_template import Renderer

        prompt, [example] = self.retriever.resolved(self.prompt, [asked(question, history)])
        return Renderer.messages(prompt, example)

    def generate(self, questions: str | Sequence[str]) -> list[str]:
        """Greedy answers, in order; "" to a question beyond the model's window. The first call loads the model.

        Raises:
            BadInput: the base is not here, or the adapter does not fit it.
        """
        asked_for = [questions] if isinstance(questions, str) else questions
        prompt, examples = self.retriever.resolved(self.prompt, [asked(question) for question in asked_for])
        adapter = "bundle" if self.manifest.adapter and not self.whole else None
        new = self.manifest.max_new_tokens
        texts, _ = self._model.generate(prompt, examples, adapter=adapter, max_new_tokens=new)
        return [text or "" for text in texts]

    @cached_property
    def retriever(self) -> Retriever:
        """Looks up what the prompt retrieves, among the rows in the bundle."""
        from graphs.services.shared_model import shared_embedder
        from memory.retrieval import NearestRows

        file = self.folder / "demos.jsonl"
        lines = whole_lines(file) if file.is_file() else ()
        demos = [parse_record(Demo, line, str(file)) for line in lines]
        rows = [
            Example(name=f"train:{place}", question=demo.question, answer=demo.answer)
            for place, demo in enumerate(demos, 1)
        ]
        return NearestRows(rows, AsShown(), lambda texts: shared_embedder()(texts))

    @property
    def whole(self) -> bool:
        """Whether the merged model is taken: no base is known, or it is not the one that was measured."""
        unmeasured = self.manifest.base.task_model is None
        return self._base is None and unmeasured and self.manifest.merged is not None

    @property
    def source(self) -> str:
        """The hub name or folder of the model that answers: the base, or the merged one. Raises BadInput: not known."""
        base = self.manifest.base
        source = self._base or (str(self.folder / str(self.manifest.merged)) if self.whole else base.task_model)
        if source is None:
            raise BadInput(
                f"the bundle {self.folder} was made on {base.name}, and does not say where that is: "
                "nesylora.load(BUNDLE, base=…) takes its folder"
            )
        return source

    @cached_property
    def _model(self) -> "Backbone":
        from tools.model.backbone import Backbone
        from tools.model.loading import load_model

        source, dtype = self.source, self.manifest.base.dtype
        model, tokenizer = load_model(
            source, dtype=dtype, chat_template_kwargs=self.manifest.switches, progress=lambda *_: None
        )
        return Backbone(
            model, tokenizer, name=source, locate=lambda _: self.folder, chat_template_kwargs=self.manifest.switches
        )
