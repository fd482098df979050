"""A vLLM server of this process's own, in an environment of its own: started when it is first needed."""

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import httpx

from agent.config.generation import Generation, max_rank
from agent.config.task import TaskConfig
from agent.errors import BadInput, NesyLoraError
from tools.engines.server import Server, key_of
from tools.llm.retry import mentions, without_key

BESIDE = Path(__file__).with_name("beside.py")
HOST = "127.0.0.1"
LOOKS_UP = 0.5  # seconds between two looks at whether it is up
SHARE = "0.5"  # of a GPU's memory: our own backbone has to stand beside it
# With these, our own packages would reach into another environment.
LEFT_OUT = ("PYTHONPATH", "PYTHONHOME")
STARTS = 3  # tries, where another program has taken the port that was free a moment before
PORT_TAKEN = ("address already in use", "eaddrinuse")
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
    """

    def __init__(self, config: TaskConfig, source: str, dtype: str, log: Path) -> None:
        check_startable(config.generation)
        self.log = log
        self._command = partial(vllm_command, config, source, dtype)
        self._own_key = key_of(config.generation)
        self._lock = threading.Lock()  # of several runs that wait, one starts it again
        self._starts = 0
        self._start()

    def _start(self) -> None:
        self._starts, self._up = self._starts + 1, False
        # Every user of this machine reaches its port. Another one for each start: who had the port may have seen it.
        self._key = self._own_key or secrets.token_urlsafe(32)
        self._port = _free_port()
        self._began = self.log.stat().st_size if self.log.exists() else 0
        environment = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
        environment |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_API_KEY": self._key}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(BESIDE), *self._command(self._port)],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,
            )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}/v1"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def client(self, settings: Generation) -> Server:
        """Sends the requests of one run."""
        return Server(f"vLLM, whose log is {self.log},", self.url, settings, key=self._key, ended=self._ended)

    def wait(self, look_up: Callable[[], object]) -> None:
        """Until it answers, however long it loads. Raises NesyLoraError: it has ended instead."""
        while not self._answers():
            with self._lock:
                if not self.alive:
                    if self._starts == STARTS or not mentions(self._output(), PORT_TAKEN):
                        raise NesyLoraError(f"vLLM has ended while it was started. {self.last_words()}")
                    self._start()
            look_up()
            time.sleep(LOOKS_UP)

    def _answers(self) -> bool:
        """Whether it is up: who answers on its port without the key is another, and ours will soon have ended."""
        if self._up:
            return self.alive
        try:
            with httpx.Client(trust_env=False, timeout=5) as client:
                known = client.get(f"{self.url}/models", headers={"Authorization": f"Bearer {self._key}"}).is_success
                self._up = known and client.get(f"{self.url}/models").status_code in (401, 403)
        except httpx.TransportError:
            pass
        return self._up

    def _ended(self) -> str:
        return "" if self.alive else f"It has ended. {self.last_words()}"

    def _output(self) -> str:
        """What it has logged since it was started last."""
        return without_key(self.log.read_bytes()[self._began :].decode(errors="replace"), self._key)

    def last_words(self) -> str:
        """Sentences with the last errors that it has logged, and where its log is."""
        lines = self._output().splitlines()
        wrong = [line for line in lines if "rror" in line and "Traceback" not in line] or lines
        return f"Its last errors: {' | '.join(line.strip() for line in wrong[-LINES:])}. Its log is {self.log}"

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
