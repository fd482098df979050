"""The engine that answers in place of our own backbone: started once a process, and shared by its runs."""

import atexit
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from agent.config.llm import Price
from agent.config.task import TaskConfig
from agent.protocols import LanguageModel
from agent.records.base import digest
from graphs.services.garbage_collection import without_garbage_collection

if TYPE_CHECKING:
    from graphs.services.run import RunServices
    from tools.engines.server import Server
    from tools.engines.starting import StartedServer

LOG = "engine.log"  # in the folder of the run that starts one

_lock = Lock()
_started: "dict[str, StartedServer]" = {}  # one at most, by what it serves


def make_engine(run: "RunServices") -> LanguageModel:
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
    return VllmModel(
        config.model, config.generation, config.chat_template_kwargs,
        server=lambda: there or _server(config, run.folder.path / LOG, look_up, run), own=lambda: run.backbone,
        locate=run.folder.adapter_folder, progress=run.progress, charge=run.charge, look_up=look_up,
    )  # fmt: skip


def _server(config: TaskConfig, log: Path, look_up: Callable[[str], object], run: "RunServices") -> "Server":
    """A server that this process has started for such a task, or starts now."""
    from tools.engines.starting import StartedServer
    from tools.model.loading import pick_device, pick_dtype, source_folder

    device = pick_device() if config.device == "auto" else config.device
    dtype = str(pick_dtype(device)).removeprefix("torch.") if config.dtype == "auto" else config.dtype
    began = time.monotonic()
    key = digest([config.model, dtype, config.lora.rank, config.generation.model_dump(mode="json")])
    with _lock:
        if key not in _started or not _started[key].alive:
            stop()
            run.note(f"Starting vLLM for '{config.model}'; its log is {log}.")
            _started[key] = StartedServer(config, source_folder(config.model, run.progress), dtype, log)
        server = _started[key]
        server.wait(look_up)
    run.loading += time.monotonic() - began  # none of what an answer takes
    return server.client


def stop() -> None:
    """End the engine that this process has started, if it has."""
    while _started:
        _started.popitem()[1].close()


atexit.register(stop)
