"""The model under adaptation behind a vLLM server: it answers; likelihoods and training stay with our own backbone."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from transformers import AutoConfig, GenerationConfig

from agent.config.generation import Generation
from agent.errors import BadInput
from agent.protocols import Asked, Charge, LanguageModel, Progress, StopEarly
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from tools.engines.parallel import in_parallel
from tools.engines.server import Server
from tools.engines.vllm import VllmServer, too_long
from tools.model.chat_template import Renderer, TokenRow
from tools.model.generation_config import HONOURED, named_settings
from tools.model.loading import load_renderer, source_folder
from tools.packed.packing import common_prefix

T = TypeVar("T")

SLOW = 10.0  # seconds after which the user is told of a request that no answer has come to


class VllmModel(LanguageModel):
    """Answers from a vLLM server, likelihoods from our own backbone, which would be charged the same for these texts.

    Args:
        name: what the task calls the model.
        settings: `generation` of the task.
        chat_template_kwargs: see `tools.model.chat_template.Renderer`.
        server: the server, the same one while it lives; it may have to be started.
        let_go: called when the run needs that server no more.
        own: our own backbone, for likelihoods; called when the first is asked for.
        locate: the folder of an adapter, from its id.
        look_up: called again and again while answers are waited for, with what is waited for; empty: nothing.
    """

    def __init__(
        self,
        name: str,
        settings: Generation,
        chat_template_kwargs: dict[str, object],
        server: Callable[[], Server],
        let_go: Callable[[], object],
        own: Callable[[], LanguageModel],
        locate: Callable[[str], Path],
        progress: Progress,
        charge: Charge,
        look_up: Callable[[str], object],
    ) -> None:
        self._name = name
        self._settings = settings
        self._switches = chat_template_kwargs
        self._connect = server
        self._let_go = let_go
        self._own = own
        self._locate = locate
        self._progress = progress
        self._charge = charge
        self._look_up = look_up
        self._known: VllmServer | None = None

    # --- what it is read and written with ---

    @cached_property
    def _rendering(self) -> tuple[Renderer, int]:
        return load_renderer(self._name, chat_template_kwargs=self._switches, progress=self._progress)

    def _connected(self) -> VllmServer:
        """The server; another one after the last has ended.

        Raises BadInput: it serves another model, or the model's generation config asks for what vLLM cannot do.
        """
        server = self._connect()
        if self._known and self._known.server is server:
            return self._known
        render, source = self._rendering[0], source_folder(self._name, self._progress)
        named, penalty = _generation(source)
        if beyond := [setting for setting in named if setting != "repetition_penalty"]:
            raise BadInput(
                f"The generation_config of '{self._name}' has {beyond[0]}, which only `generation.engine: own` does as "
                "transformers does"
            )
        names = (self._name, source, Path(source).name)
        ends = _ends(render, source)
        self._known = self._waited_for(server, "", lambda: VllmServer(server, names, ends, penalty))
        return self._known

    def close(self) -> None:
        """Unload this run's adapters and let go of the server; it is asked for again if it is needed after all."""
        if self._known:
            self._known.close()
            self._known = None
        self._let_go()

    def _waited_for(self, server: Server, what: str, ask: Callable[[], T]) -> T:
        """What one request brings, which is not waited for where the run is broken off; `what` it is to do."""
        began = time.monotonic()

        def look_up() -> None:
            slow = time.monotonic() > began + SLOW
            self._look_up(server.waits or (f"Waiting for {server.name}{what}." if slow else ""))

        [(_, found)] = in_parallel(lambda _: ask(), [0], 1, look_up, server.abandon)
        self._look_up("")
        return found

    # --- answers ---

    def generate_each(
        self,
        asked: Sequence[Asked],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> list[tuple[list[str | None], Spend]]:
        """As `LanguageModel.generate_each`: one prompt after another, each with many requests at a time.

        Every answer goes to its end, whatever `stop_early` would allow.

        Raises:
            NesyLoraError: the server is away for too long, serves another model, or does not take the adapter or a row.
        """
        return [self._answers(*each, adapter, max_new_tokens) for each in asked]

    def _answers(
        self, prompt: Prompt, examples: Sequence[Example], adapter: str | None, new: int
    ) -> tuple[list[str | None], Spend]:
        server, (render, window) = self._connected(), self._rendering
        rows = [TokenRow(ids, []) for ids in render.prompts_ids(prompt, examples)]
        folder = None if adapter is None else self._locate(adapter)
        fitting = [place for place, row in enumerate(rows) if len(row) + new <= window]
        for place in fitting:
            if server.length and len(rows[place]) + new > server.length:
                raise too_long(server.server.name, len(rows[place]), new, server.length)
        spend = self._charged(read_tokens=_cost([rows[place] for place in fitting]))
        if adapter is not None:  # loaded before all ask for it
            self._waited_for(server.server, f" to load adapter {adapter}", lambda: server.name_of(folder))
        texts: list[str | None] = [None] * len(rows)
        done, ends = 0, set(server.ends)
        self._progress("answering", done, len(rows))
        answers = in_parallel(
            lambda place: server.answer(rows[place].prompt, new, folder), fitting,
            self._settings.batch_size, lambda: self._look_up(server.server.waits), server.server.abandon,
        )  # fmt: skip
        with closing(answers):
            for done, (place, answered) in enumerate(answers, 1):
                ids = answered[: next((at for at, token in enumerate(answered) if token in ends), len(answered))]
                texts[place] = render.output(ids)
                spend += self._charged(generated_tokens=len(ids) + 1)
                self._progress("answering", done, len(rows), f"with adapter {adapter}" if adapter else "")
        if done < len(rows):
            self._progress("answering", done, len(rows), f"{len(rows) - done} rows are too long for the model")
        return texts, spend

    def _charged(self, **tokens: int) -> Spend:
        spend = Spend(**tokens)
        self._charge(spend)
        return spend

    # --- likelihoods ---

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> tuple[Sequence[float | None], Spend]:
        """As `LanguageModel.nll`, by our own backbone."""
        return self._own().nll(prompt, examples, completions, adapter=adapter)


def _cost(rows: Sequence[TokenRow]) -> int:
    """Tokens that are read for these rows; what they share, once: the server keeps it, too."""
    shared = len(common_prefix(rows)) if rows else 0
    return sum(map(len, rows)) - shared * (len(rows) - 1)


def _generation(source: str) -> tuple[list[str], float]:
    """Settings of the model's generation config that change a greedy answer; and its penalty of repetition."""
    config = _config(source)
    return named_settings(config, HONOURED), float(config.repetition_penalty or 1.0)


def _ends(render: Renderer, source: str) -> list[int]:
    """Ids that end an answer, as our own backbone has them."""
    named = _config(source).eos_token_id
    named = named if isinstance(named, list) else [named]
    return sorted({render.end, *(token for token in named if token is not None)})


def _config(source: str) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:  # it has none of its own, and transformers makes one of the model's
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(source, trust_remote_code=False))
