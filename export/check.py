"""`nesylora export --check`: the exported thing asked the task's rows, in each engine that is here."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import httpx

from agent.config.address import is_local
from agent.errors import BadInput, NesyLoraError
from agent.protocols import Progress
from agent.records.evaluation import ExampleScore
from agent.records.examples import Example, Prompt, Split
from eval.stats import interval
from export.base import base_folder
from export.bundle import seal
from export.manifest import Check, Difference, Manifest, check_pair, read_manifest
from graphs.context import Context
from graphs.services.run import RunServices
from graphs.serving import best_pair
from memory.run.folder import RunFolder
from tools.model.chat_template import Message, Renderer

ENGINES = Path(__file__).parent / "engines"
SHOWN = 3  # differences that a check names
TIMEOUT = 120.0  # seconds of one request to a server


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server that serves the bundle.

    Attributes:
        url: up to and with /v1.
        model: as the server calls it.
    """

    url: str
    model: str


class Answered(NamedTuple):
    """What an engine said. `prompts` are the token ids it read, where it tells them; `texts` one for each row."""

    versions: str
    prompts: list[list[int]] | None
    texts: list[str]


def check(
    run: Path, bundle: Path, split: Split = "validation", *, python: str = sys.executable, server: Server | None = None,
    progress: Progress | None = None, notify: Callable[[str], object] = print,
) -> Manifest:  # fmt: skip
    """Ask a run's bundle the rows of a split, in each engine, and write into the bundle's card how it did.

    Args:
        run: the run's folder; its task's rows must be where it found them.
        split: validation, or test where that is asked for: the rows are opened once more.
        python: an interpreter that has the engines: transformers and peft, or xllamacpp.
        server: one more engine.
        notify: takes a sentence on each engine.

    Returns:
        The bundle's manifest, with the new checks in place of older ones of the same engine and split.

    Raises:
        BadInput: no bundle, or one of another pair; or the run's rows have changed.
        NesyLoraError: an engine that is here fails, or the server does not answer.
    """
    manifest = read_manifest(bundle)
    check_pair(RunFolder.open(run), bundle, manifest)
    work = _Checking(RunServices(Context(run=str(run))), bundle, manifest, split, progress or (lambda *_: None))
    done = {(made.engine, made.split): made for made in manifest.checks}
    for engine, ask in work.engines(python, server).items():
        answered = ask()
        if isinstance(answered, str):
            notify(f"{engine}: left out, {answered}")
            continue
        made = work.judge(engine, answered)
        done[engine, split] = made
        notify(str(made))
        manifest = manifest.model_copy(update={"checks": tuple(done.values())})
        seal(bundle, manifest)
    return manifest


@dataclass
class _Checking:
    """One check under way."""

    services: RunServices
    bundle: Path
    manifest: Manifest
    split: Split
    progress: Progress

    # --- what is asked ---

    @cached_property
    def rows(self) -> Sequence[Example]:
        return self.services.spec.rows(self.split)

    @cached_property
    def prompt(self) -> Prompt:
        return self.services.folder.prompt(best_pair(self.services.folder).prompt)

    @cached_property
    def resolved(self) -> tuple[Prompt, Sequence[Example]]:
        """The prompt without its retrieval, the rows with what it retrieves."""
        return self.services.retriever.resolved(self.prompt, self.rows)

    @cached_property
    def asked(self) -> list[list[Message]]:
        """A bare question where the template knows the rest; else all that the model is to read."""
        prompt, rows = self.resolved
        return [self._messages(prompt, row) for row in rows]

    def _messages(self, prompt: Prompt, row: Example) -> list[Message]:
        if self.manifest.refined_template and not (row.demos or row.system):
            turns = [{"role": turn.role, "content": turn.content} for turn in row.turns]
            return [*turns, {"role": "user", "content": row.question}]
        return Renderer.messages(prompt, row)

    @cached_property
    def render(self) -> Renderer:
        return self.services.backbone.render

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Ids of the rows, as the run reads them."""
        prompt, rows = self.resolved
        return self.render.prompts_ids(prompt, rows)

    @cached_property
    def ours(self) -> list[str]:
        """Whole answers of the run's own model."""
        prompt, rows = self.resolved
        adapter, new = best_pair(self.services.folder).adapter, self.manifest.max_new_tokens
        texts, _ = self.services.backbone.generate(prompt, rows, adapter=adapter, max_new_tokens=new)
        return [text or "" for text in texts]

    @cached_property
    def our_scores(self) -> list[ExampleScore]:
        return self._scores(self.ours)

    def _scores(self, texts: Sequence[str]) -> list[ExampleScore]:
        return self.services.spec.scorers.score_all(list(zip(self.rows, texts, strict=True)))

    # --- engines ---

    def engines(self, python: str, server: Server | None) -> dict[str, Callable[[], Answered | str]]:
        """What answers, by name: its answers, or why there are none."""
        base = str(base_folder(self.services.spec.config.model))
        adapter = str(self.bundle) if self.manifest.adapter else None
        whole = {"model": base, "adapter": adapter, "tokenizer": str(self.bundle)}
        name = "transformers + peft" if adapter else "transformers"
        found: dict[str, Callable[[], Answered | str]] = {name: lambda: self._asked("with_transformers", python, whole)}
        if merged := self.manifest.merged:
            folder = str(self.bundle / merged)
            job = {"model": folder, "adapter": None, "tokenizer": folder}
            found["transformers, merged"] = lambda: self._asked("with_transformers", python, job)
        for file in self.manifest.gguf:
            gguf = {"model": str(self.bundle / file)}
            found[f"llama.cpp, {file}"] = lambda gguf=gguf: self._asked("with_llama_cpp", python, gguf)  # type: ignore[misc]
        if server:
            found[f"server, {server.model}"] = lambda: self._served(server)
        return found

    def _asked(self, script: str, python: str, job: dict[str, str | None]) -> Answered | str:
        """The answers of a script in an interpreter that sees nothing of ours: `-I` leaves PYTHONPATH out."""
        self.progress("checking", 0, 1, script.replace("_", " "))
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = Path(folder, "asked.json"), Path(folder, "answered.json")
            more = {
                "rows": self.asked, "max_new_tokens": self.manifest.max_new_tokens, "stop": self.manifest.stop,
                "dtype": self.manifest.base.dtype, "context": max(map(len, self.prompts)),
            }  # fmt: skip
            asked.write_text(json.dumps(job | more), encoding="utf-8")
            command = [python, "-I", str(ENGINES / f"{script}.py"), str(asked), str(answered)]
            try:
                ended = subprocess.run(command, capture_output=True, text=True, cwd=folder)
            except OSError as error:
                raise BadInput(f"--python {python} cannot be started: {error.strerror}") from error
            if not answered.is_file():
                return self._why_not(script, python, ended)
            found = json.loads(answered.read_text(encoding="utf-8"))
        texts = [text if isinstance(text, str) else self._text(text) for text in found["answers"]]
        return Answered(found["versions"], found["prompts"], texts)

    @staticmethod
    def _why_not(script: str, python: str, ended: "subprocess.CompletedProcess[str]") -> str:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        if last.startswith("ModuleNotFoundError"):
            return f"{python} has no {last.rpartition('named')[2].strip()}"
        raise NesyLoraError(f"{script} failed in {python} (exit {ended.returncode}): {last}")

    def _text(self, ids: list[int]) -> str:
        """The text of the ids before the first that ends an answer."""
        ends = [place for place, token in enumerate(ids) if token in self.services.backbone.ends]
        return self.render.output(ids[: ends[0]] if ends else ids)

    def _served(self, server: Server) -> Answered:
        texts = []
        with httpx.Client(timeout=TIMEOUT, trust_env=not is_local(server.url)) as client:
            for done, messages in enumerate(self.asked):
                self.progress("checking", done, len(self.asked), server.url)
                texts.append(self._reply(client, server, messages))
        return Answered("", None, texts)

    def _reply(self, client: httpx.Client, server: Server, messages: list[Message]) -> str:
        body = {
            "model": server.model, "messages": messages, "temperature": 0,
            "max_tokens": self.manifest.max_new_tokens, "stop": list(self.manifest.stop) or None,
        }  # fmt: skip
        try:
            reply = client.post(f"{server.url.rstrip('/')}/chat/completions", json=body)
            reply.raise_for_status()
            return str(reply.json()["choices"][0]["message"]["content"] or "")
        except (httpx.HTTPError, ValueError, LookupError) as error:
            raise NesyLoraError(f"the server {server.url} did not answer: {error}") from error

    # --- the verdict ---

    def judge(self, engine: str, answered: Answered) -> Check:
        """Beside our own answers; white space at the ends of a text counts for nothing."""
        texts = [text.strip() for text in answered.texts]
        rewards = [score.reward for score in self._scores(texts)]
        own = [score.reward for score in self.our_scores]
        low, high = interval(rewards)
        reward, wanted = sum(rewards) / len(rewards), sum(own) / len(own)
        named = zip(self.rows, self.ours, texts, strict=True)
        differing = [Difference(row=row.name, ours=a, theirs=b) for row, a, b in named if a != b]
        prompts = answered.prompts
        return Check(
            engine=engine, versions=answered.versions, split=self.split, rows=len(texts),
            same=len(texts) - len(differing), reward=reward, low=low, high=high, ours=wanted,
            holds=reward >= min(interval(own)[0], wanted),
            other_prompts=None if prompts is None else sum(a != b for a, b in zip(prompts, self.prompts, strict=True)),
            differences=tuple(differing[:SHOWN]) if self.split == "validation" else (),  # sealed rows stay sealed
        )  # fmt: skip
