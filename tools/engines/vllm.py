"""A vLLM server: token ids in, token ids out, and adapters that are loaded while it runs."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from agent.errors import BadInput, NesyLoraError
from tools.engines.server import BRIEF_SECONDS, Refused, Server
from tools.llm.retry import OVERFLOW, mentions

MOST_ADAPTERS = 8  # that stay loaded; the oldest is unloaded
LORA = "--enable-lora, and in its environment VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"


class VllmServer:
    """Answers of one base, with adapters by the digest of their files. For any number of threads.

    Args:
        server: sends the requests.
        names: what the task's model may be called there: its name in the task, and its folder.
        ends: ids that end an answer.
        repetition_penalty: of the model's generation config; 1: none.

    Attributes:
        ends: the argument.
        length: most tokens of a row, prompt and answer together; None: the server does not say.
    """

    def __init__(self, server: Server, names: Sequence[str], ends: Sequence[int], repetition_penalty: float) -> None:
        self.server = server
        self.ends = ends
        self._base, self.length = self._find(names)
        self._options = {
            "temperature": 0, "repetition_penalty": repetition_penalty, "stop_token_ids": list(ends),
            "return_token_ids": True, "add_special_tokens": False,
        }  # fmt: skip
        self._loaded: OrderedDict[str, Path] = OrderedDict()
        self._closed = False
        self._lock = threading.Lock()

    def _find(self, names: Sequence[str]) -> tuple[str, int | None]:
        """What the server calls the task's model, and its window. Raises BadInput: it serves another one."""
        try:
            models = [card for card in self.server.get("/models")["data"] if not card.get("parent")]
            found = [card for card in models if {card["id"], card.get("root")} & set(names)]
            if found:
                return str(found[0]["id"]), found[0].get("max_model_len")
            served = ", ".join(repr(card["id"]) for card in models) or "nothing"
        except Refused as refused:
            raise self.server.fault(refused) from refused
        except (LookupError, TypeError, AttributeError) as error:
            raise BadInput(f"{self.server.name} is no vLLM server: its list of models cannot be read") from error
        raise BadInput(
            f"{self.server.name} serves {served}, and the task's model is '{names[0]}'. Start it with that model, or, "
            f"if it is the same, with --served-model-name {names[0]}; or look at generation.url"
        )

    # --- adapters ---

    def name_of(self, adapter: Path | None) -> str:
        """What to ask for, to be answered with this adapter (None: by the base). It is loaded if need be.

        Raises:
            BadInput: the server does not take it.
        """
        if adapter is None:
            return self._base
        # Never the same for other weights: cached prefixes go by the name. Nor for other runs: each unloads its own.
        name = f"nesylora-{digest_of(adapter)}"
        with self._lock:
            if name not in self._loaded and not self._closed:
                self._load(name, adapter)
            self._loaded[name] = adapter
            self._loaded.move_to_end(name)
            self._unload(MOST_ADAPTERS)
        return name

    def _load(self, name: str, adapter: Path) -> None:
        try:
            self.server.post("/load_lora_adapter", {"lora_name": name, "lora_path": str(adapter.resolve())})
        except Refused as refused:
            if "already been loaded" in refused.text:  # by this run, before it was resumed
                return
            raise self._not_loaded(adapter, refused) from refused

    def _not_loaded(self, adapter: Path, refused: Refused) -> NesyLoraError:
        what, text = f"{self.server.name} does not take the adapter {adapter.name} ({refused})", refused.text.lower()
        if refused.status == 404 and "adapter" not in text:
            return BadInput(f"{what}: it has no route for adapters. Start vLLM with {LORA}")
        if refused.status == 404:
            return BadInput(f"{what}: it must see the run's folder under the same path, {adapter}")
        if "max_lora_rank" in text or "greater than" in text:
            return BadInput(f"{what}: start it with a larger --max-lora-rank, or lower lora.rank")
        if "lora is not enabled" in text or "enable-lora" in text or "enable_lora" in text:
            return BadInput(f"{what}: start vLLM with {LORA}")
        if refused.status in (401, 403):
            return self.server.fault(refused)
        return BadInput(f"{what}; `generation.engine: own` takes it")

    def _unload(self, most: int) -> None:
        """Let the oldest go, so that so many stay; none where the run has let go."""
        answers = True
        while answers and len(self._loaded) > (0 if self._closed else most):
            name, _ = self._loaded.popitem(last=False)
            answers = self.server.try_once("/unload_lora_adapter", {"lora_name": name})

    def close(self) -> None:
        """Unload what this run has loaded, as far as the server answers."""
        self._closed = True
        if self._lock.acquire(timeout=BRIEF_SECONDS):  # else a thread that nobody waits for is loading one: it unloads
            try:
                self._unload(0)
            finally:
                self._lock.release()

    # --- answers ---

    def answer(self, ids: Sequence[int], new: int, adapter: Path | None) -> list[int]:
        """The ids of a greedy answer, with the one that ends it.

        Raises:
            NesyLoraError: there is none.
        """
        name = self.name_of(adapter)
        body = {"model": name, "prompt": list(ids), "max_tokens": new, **self._options}
        try:
            found = self._completion(body)
        except Refused as refused:
            if adapter is None or refused.status != 404:
                raise self._unanswered(refused, len(ids), new) from refused
            with self._lock:  # another run has unloaded it, or the server was started again
                self._loaded.pop(name, None)
            try:
                found = self._completion(body | {"model": self.name_of(adapter)})
            except Refused as again:
                raise self._unanswered(again, len(ids), new) from again
        answered: list[int] | None = found.get("token_ids")
        if answered is None:
            raise BadInput(f"{self.server.name} gives no token ids with its answers: vLLM does so from 0.10.2 on")
        return answered

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.server.post("/completions", body)["choices"][0]
        except (LookupError, TypeError) as error:
            raise NesyLoraError(f"{self.server.name} sent something that is no completion") from error
        return found

    def _unanswered(self, refused: Refused, tokens: int, new: int) -> NesyLoraError:
        if mentions(refused.text, OVERFLOW):
            return too_long(self.server.name, tokens, new, self.length)
        return self.server.fault(refused)


def too_long(name: str, tokens: int, new: int, length: int | None) -> NesyLoraError:
    """The error of a row that the model could take, and its server does not."""
    holds = f"takes {length} tokens" if length else "does not take it"
    return BadInput(
        f"A row of {tokens} tokens and {new} new ones fits into the model's window, and {name} {holds}. Start it with "
        "a larger --max-model-len (generation.arguments, where it is started here), or lower generation.max_new_tokens"
    )


def digest_of(adapter: Path) -> str:
    """Of an adapter's weights, its settings and its place. Raises BadInput: it cannot be read."""
    files = [adapter.resolve() / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    try:
        return _digest(tuple((file, file.stat().st_mtime_ns) for file in files))
    except OSError as error:
        raise BadInput(
            f"there is no adapter in {adapter}: {error.filename} cannot be read ({error.strerror})"
        ) from error


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[Path, int], ...]) -> str:
    made = hashlib.sha256()
    for file, _ in files:
        made.update(str(file).encode() + b"\0" + file.read_bytes())
    return made.hexdigest()[:16]
