"""`nesylora serve` as a user starts it: a run and its bundle over one base, until a signal."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import pytest

import nesylora
from agent.errors import BadInput
from agent.records.served import ServedRequest
from export.bundle import Wanted, export_run
from graphs.context import new_run
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.command_line import run as command
from tests.fixtures.learnable import TinyTask
from ui.commands.serve import told
from ui.serve.models import read_pairs

TOKEN = "a key"


@pytest.fixture
def model(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    """One that never ends an answer, so that requests are under way for as long as a test needs them."""
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    file = tmp_path / "model" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"suppress_tokens": [1]}))
    return tmp_path / "model"


@pytest.fixture
def run(tiny_task: TinyTask, model: Path, tmp_path: Path) -> RunFolder:
    """A run of which only the seed prompt was measured; it retrieves."""
    prompt = {"system": "Answer.", "retrieval": {"k": 2}}
    task = tiny_task(model=str(model), prompt=prompt, style=[], generation={"max_new_tokens": 20})
    made = new_run(task, ["recall.prompts=0"], tmp_path / "runs", name="made")
    with open_session(made, supervised=True) as session:
        session.go()
    return made


@dataclass
class Started:
    """A server in a process of its own."""

    process: "subprocess.Popen[str]"
    url: str
    printed: str
    log: Path

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=TOKEN, max_retries=0)


@pytest.fixture
def started(run: RunFolder, model: Path, tmp_path: Path) -> Iterator[Started]:
    """The server of the run, and of its bundle under a name of its own."""
    export_run(run.path, tmp_path / "taken")
    log = tmp_path / "log.jsonl"
    process = subprocess.Popen(
        [
            sys.executable, "-c", "import nesylora; nesylora.main()", "serve", "made", f"taken={tmp_path / 'taken'}",
            "--runs", str(run.path.parent), "--base", str(model), "--port", "0", "--log", str(log),
        ],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "NESYLORA_TOKEN": TOKEN},
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    while sum("retrieves" in line for line in lines) < 2:  # of the run, and of the bundle
        lines.append(process.stdout.readline())
        assert lines[-1], process.wait()
    printed = "".join(lines)
    [url] = re.findall(r"at (http://127.0.0.1:\d+/v1)", printed)
    yield Started(process, url, printed, log)
    process.kill()
    process.wait()


def test_a_run_and_its_bundle_answer_as_they_do_from_python_until_a_signal(started: Started, run: RunFolder) -> None:
    assert shlex.split(next(line for line in started.printed.splitlines() if "vllm" in line))[:2] == ["vllm", "serve"]
    for part in ("OpenAI(base_url=", "sglang.launch_server", "llama-server", "nesylora export", ".messages(question)"):
        assert part in started.printed
    curl = next(line for line in started.printed.splitlines() if line.strip().startswith("curl"))
    asked = subprocess.run(
        ["bash", "-c", curl.replace("curl", "curl -s")], capture_output=True, text=True, check=True,
        env=os.environ | {"NESYLORA_TOKEN": TOKEN},
    )  # fmt: skip
    assert '"finish_reason"' in asked.stdout
    questions = ["Name the mayor of Benn.", 'Who "is" {question}?']
    ours = nesylora.Adapted(run.path, None, None, None).generate(questions)  # type: ignore[arg-type]
    messages = [[{"role": "user", "content": question}] for question in questions]
    for name in ("mayors", "taken"):
        answers = [started.client().chat.completions.create(model=name, messages=turns) for turns in messages]  # type: ignore[arg-type]
        assert [answer.choices[0].message.content for answer in answers] == ours

    begun = threading.Event(), threading.Event()

    def long(place: int) -> str | None:
        """A request that is under way when the signal comes."""
        reasons = []
        for chunk in started.client().chat.completions.create(
            model="mayors", messages=messages[place], stream=True, max_tokens=600
        ):  # type: ignore[call-overload]
            reasons.append(chunk.choices[0].finish_reason)
            begun[place].set()
        return reasons[-1]

    health = started.url.replace("/v1", "/health")
    with ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(long, place) for place in (0, 1)]
        assert all(each.wait(60) for each in begun)
        started.process.send_signal(signal.SIGTERM)
        for _ in range(500):
            if httpx.get(health).json()["status"] == "stopping":
                break
            time.sleep(0.01)
        with pytest.raises(openai.InternalServerError, match="stopping") as refused:
            started.client().chat.completions.create(model="mayors", messages=messages[0])  # type: ignore[call-overload]
        assert refused.value.status_code == 503
        assert [future.result() for future in under_way] == ["length", "length"]
    assert started.process.wait(30) == 0
    records = [ServedRequest.model_validate_json(line) for line in started.log.read_text().splitlines()]
    assert len(records) == 7 and {record.finish for record in records} <= {"stop", "length"}


def test_the_commands_that_are_printed_for_other_engines_fit_together(
    run: RunFolder, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each model; what the export makes is what the engines are given, and nothing of the bundle is lost."""
    monkeypatch.chdir(tmp_path)
    export_run(run.path, tmp_path / "taken", Wanted(gguf=("q8_0",), base="somebody/tiny"))

    def printed() -> list[list[str]]:
        pairs = read_pairs(["first=runs/made", "second=taken"], tmp_path / "runs", model.name)  # as named from here
        served = [SimpleNamespace(name=pair.name, pair=pair, prompt=pair.prompt) for pair in pairs]
        _, _, elsewhere = told(served, "http://127.0.0.1:1/v1", token=False).partition("Elsewhere")  # type: ignore[arg-type]
        return [shlex.split(line, comments=True) for line in elsewhere.splitlines()[1:] if "messages(" not in line]

    before = printed()
    exports = [words[1:] for words in before if words[0] == "nesylora"]
    assert len(exports) == 2
    for words in exports:
        assert command(words) == 0
    engines = [words for words in before if words[0] != "nesylora"]
    assert [words[-1] for words in engines] == ["first"] * 3 + ["second"] * 3
    for words in engines:
        given = {"vllm": "serve", "python": "--model-path", "llama-server": "-m"}[words[0]]
        assert Path(words[words.index(given) + 1]).exists()
    assert [words[1:] for words in printed() if words[0] == "nesylora"] == exports[:1], "the bundle has all by now"
    assert json.loads(Path("taken/bundle.json").read_text())["base"]["hub"] == "somebody/tiny"


def test_it_is_said_that_the_task_s_engine_does_not_answer_here(run: RunFolder) -> None:
    run.task_file.write_text(run.task_file.read_text().replace("engine: own", "engine: vllm"))
    [pair] = read_pairs([str(run.path)], run.path.parent, None)
    served = SimpleNamespace(name=pair.name, pair=pair, prompt=pair.prompt)
    assert "engine: vllm`; here our own backbone answers" in told([served], "http://127.0.0.1:1/v1", token=False)  # type: ignore[list-item]


def test_what_cannot_be_served_is_told_before_anything_is_loaded(
    run: RunFolder, tiny_model: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs", str(run.path.parent)]
    for arguments, said in (
        (["nothing"], "neither a bundle nor a run in nothing"),
        (["made", "made"], "would both be called mayors"),
        (["made", "--host", "0.0.0.0"], "give a token"),
        (["made", "--log", str(tmp_path / "none" / "log")], "cannot be written"),
    ):
        assert command(["serve", *arguments, *runs]) == 2
        assert said in capsys.readouterr().err
    export_run(run.path, tmp_path / "taken")
    with pytest.raises(BadInput, match="does not say where that is"):
        read_pairs([str(tmp_path / "taken")], run.path.parent, None)
    with pytest.raises(BadInput, match="one server has one base"):
        read_pairs([f"a={run.path}", f"b={tmp_path / 'taken'}"], run.path.parent, str(tiny_model("qwen2")))
