"""The engine that answers in place of our own backbone: started once a process, and shared by its runs."""

import atexit
import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from agent.config.generation import max_rank
from agent.config.llm import Price
from agent.config.task import TaskConfig
from agent.records.base import digest
from graphs.services.garbage_collection import without_garbage_collection

if TYPE_CHECKING:
    from graphs.services.run import RunServices
    from tools.engines.openai_model import OpenAiModel
    from tools.engines.server import Server
    from tools.engines.starting import StartedServer
    from tools.engines.vllm_model import VllmModel

LOG = "engine.log"  # in the folder of the run that starts one


@dataclass
class _Shared:
    """A server, and the runs that use it now."""

    server: "StartedServer"
    users: "set[StartedEngine]" = field(default_factory=set)


_lock = Lock()
_started: dict[str, _Shared] = {}  # by what makes another process


def make_engine(run: "RunServices") -> "OpenAiModel | VllmModel":
    """What answers a run whose task names an engine. It is asked, and started, when the first answer is wanted."""
    config = run.spec.config

    def look_up(waits: str) -> None:
        run.brake(False)
        if waits != run.waits:
            run.waiting(waits)

    def look_up_with_money(waits: str) -> None:
        look_up(waits)
        run.mind_budget()

    with without_garbage_collection():
        if config.generation.engine == "openai":
            from tools.engines.openai_model import OpenAiModel
            from tools.engines.payments import Payments

            payments = Payments(config.model, config.answer_price or Price(), lambda: run.payer)
            return OpenAiModel(
                config.model, config.generation, run.progress, run.charge, look_up_with_money, run.note, payments
            )
        from tools.engines.server import Server
        from tools.engines.vllm_model import VllmModel

    url = config.generation.url
    there = url and Server("the vLLM server", url, config.generation)
    engine = StartedEngine(run)
    return VllmModel(
        config.model, config.generation, config.chat_template_kwargs,
        server=lambda: there or engine.server(), let_go=engine.let_go, own=lambda: run.backbone,
        locate=run.folder.adapter_folder, progress=run.progress, charge=run.charge, look_up=look_up,
    )  # fmt: skip


class StartedEngine:
    """One run's use of a vLLM that this process has started, or starts when it is asked for."""

    def __init__(self, run: "RunServices") -> None:
        self._run = run
        self._client: tuple[StartedServer, Server] | None = None

    def server(self) -> "Server":
        """Sends this run's requests. Raises NesyLoraError: it does not start."""
        from tools.model.loading import dtype_name, pick_device, source_folder

        began, run, config = time.monotonic(), self._run, self._run.spec.config
        source = source_folder(config.model, run.progress)
        dtype = dtype_name(config.dtype, pick_device(config.device))
        key = _key(config, dtype)
        for idle in _taken_idle(key):  # not under the lock: it may take long to end
            idle.close()
        with _lock:
            server = self._shared(key, source, dtype)

        def look_up() -> None:
            run.brake(False)
            run.waiting(f"Starting vLLM for '{config.model}'; its log is {server.log}.")

        server.wait(look_up)  # without the lock: every run that waits can be broken off
        run.waiting("")
        run.loading += time.monotonic() - began  # none of what an answer takes
        if self._client is None or self._client[0] is not server:
            self._client = server, server.client(config.generation)
        return self._client[1]

    def _shared(self, key: str, source: str, dtype: str) -> "StartedServer":
        """A live one, which this run uses from now on."""
        from tools.engines.starting import StartedServer

        config = self._run.spec.config
        users = set[StartedEngine]()
        if key in _started and not _started[key].server.alive:
            users = _started[key].users
            _started.pop(key).server.close()
        if key not in _started:
            _started[key] = _Shared(StartedServer(config, source, dtype, self._run.folder.path / LOG), users)
        _started[key].users.add(self)
        return _started[key].server

    def let_go(self) -> None:
        """This run needs it no more. It goes on for runs to come, until the process ends or needs another one."""
        with _lock:
            for shared in _started.values():
                shared.users.discard(self)


def _key(config: TaskConfig, dtype: str) -> str:
    """Of all that makes another process of it; each run brings its own patience, and its number of requests."""
    settings = config.generation
    return digest([config.model, dtype, max_rank(config.lora), settings.python, settings.arguments])


def _taken_idle(key: str) -> "list[StartedServer]":
    """What no run uses, where another is to be started: two seldom fit into a GPU's memory. For the caller to end."""
    with _lock:
        idle = [] if key in _started else [other for other, shared in _started.items() if not shared.users]
        return [_started.pop(other).server for other in idle]


def stop() -> None:
    """End the engines that this process has started, if it has."""
    while _started:
        _started.popitem()[1].server.close()


atexit.register(stop)
