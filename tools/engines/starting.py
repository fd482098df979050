"""A vLLM server of this process's own, in an environment of its own: started when it is first needed."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from agent.config.generation import Generation, max_rank
from agent.config.task import TaskConfig
from agent.errors import BadInput, NesyLoraError
from tools.engines.server import Server

BESIDE = Path(__file__).with_name("beside.py")
HOST = "127.0.0.1"
LOOKS_UP = 0.5  # seconds between two looks at whether it is up
SHARE = "0.5"  # of a GPU's memory: our own backbone has to stand beside it
# With these, our own packages would reach into another environment.
LEFT_OUT = ("PYTHONPATH", "PYTHONHOME")
LINES = 3  # of the log, in an error


def check_startable(settings: Generation) -> None:
    """Raises BadInput: the task wants vLLM started here, and no interpreter that has it is named. Starts nothing."""
    if settings.engine != "vllm" or settings.url:
        return
    if settings.python is None and importlib.util.find_spec("vllm") is None:
        raise BadInput(
            "generation.engine: vllm is not installed in this environment. Install it in one of its own (its torch is "
            "seldom ours) and name that interpreter as generation.python, or give a server's address as generation.url"
        )
    if settings.python and not shutil.which(os.path.expanduser(settings.python)):
        raise BadInput(f"generation.python: {settings.python} is no program that can be run")


class StartedServer:
    """A running vLLM. It ends with `close`, and when this process ends, however that ends.

    Args:
        config: of the task: its model, precision, rank and engine.
        source: folder or hub name of the weights.
        dtype: in which our own backbone computes.
        log: where the server's output goes.

    Attributes:
        client: sends requests to it.
    """

    def __init__(self, config: TaskConfig, source: str, dtype: str, log: Path) -> None:
        check_startable(config.generation)
        self._log, self._port = log, _free_port()
        # What has ended does not come back by waiting.
        self.client = Server(
            f"vLLM, whose log is {log},", self.url, config.generation.model_copy(update={"patience": 0})
        )
        command = [sys.executable, "-I", str(BESIDE), *vllm_command(config, source, dtype, self._port)]
        environment = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
        environment |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1"}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,
            )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}/v1"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait(self, look_up: Callable[[str], object]) -> None:
        """Until it answers, however long it loads. Raises NesyLoraError: it has ended instead."""
        with httpx.Client(trust_env=False, timeout=5) as client:
            while True:
                try:
                    if client.get(f"{self.url.removesuffix('/v1')}/health").is_success:
                        return
                except httpx.TransportError:
                    pass
                if not self.alive:
                    raise NesyLoraError(f"vLLM has ended while it was started. {self.last_words()}")
                look_up("")
                time.sleep(LOOKS_UP)

    def last_words(self) -> str:
        """Sentences with the last errors that it has logged, and where its log is."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        wrong = [line for line in lines if "rror" in line and "Traceback" not in line] or lines
        return f"Its last errors: {' | '.join(line.strip() for line in wrong[-LINES:])}. Its log is {self._log}"

    def close(self) -> None:
        """End it, with all processes of its own."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait()


def vllm_command(config: TaskConfig, source: str, dtype: str, port: int) -> Sequence[str]:
    """What starts vLLM for a task. Arguments of the user's own come last, and win."""
    settings = config.generation
    python = os.path.expanduser(settings.python) if settings.python else sys.executable
    return [
        python, "-I", "-m", "vllm.entrypoints.cli.main", "serve", source, "--served-model-name", config.model,
        "--host", HOST, "--port", str(port), "--dtype", dtype, "--generation-config", "vllm",
        "--enable-lora", "--max-lora-rank", str(max_rank(config.lora)), "--gpu-memory-utilization", SHARE,
        *settings.arguments,
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
