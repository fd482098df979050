"""The MCP server, asked by the official client: a whole run through the tools alone, and a person's yes."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml

from graphs.context import new_run
from graphs.control import process
from graphs.control.client import live
from graphs.control.driver import drive
from graphs.control.steering import Steering
from memory.run.folder import RunFolder, runs
from tests.fixtures.learnable import LEARNABLE, TinyTask
from ui.report.write import write_report

mcp = pytest.importorskip("mcp", reason="the MCP server is not installed: pip install 'nesylora[mcp]'")
pytest.importorskip("fastmcp", reason="the MCP server is not installed: pip install 'nesylora[mcp]'")

from fastmcp import FastMCP  # noqa: E402
from mcp import Client, StdioServerParameters  # noqa: E402
from mcp_types import ElicitRequestFormParams, ElicitResult  # noqa: E402

from ui.mcp.command import ASKING  # noqa: E402
from ui.mcp.runs import Runs  # noqa: E402
from ui.mcp.server import build_server  # noqa: E402
from ui.mcp.views import RunView  # noqa: E402

ROOT = Path(__file__).parents[3]
MODES = ["auto", "legacy"]  # the protocol of 2026, and the one before, which asks in another way
PATIENCE = 300.0


class Person:
    """Who is asked, and what is answered."""

    def __init__(self, answer: ElicitResult | None = None) -> None:
        self.asked: list[str] = []
        self._answer = answer or ElicitResult(action="accept", content={"approve": True})

    async def __call__(self, context: object, params: ElicitRequestFormParams) -> ElicitResult:
        self.asked.append(params.message)
        return self._answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes the server, whose runs are worked on in threads of this process."""
    with ExitStack() as open_runs:
        begun: dict[str, Steering] = {}

        def steer(folder: RunFolder) -> Steering:
            if folder.name not in begun or begun[folder.name].status().condition == "stopped":
                begun[folder.name] = open_runs.enter_context(drive(folder, supervised=True, report=write_report))
            return begun[folder.name]

        yield lambda allowed=(): build_server(Runs(tmp_path / "runs", steer), allowed)


def talk(server: Any, do: Callable[[Any], Awaitable[None]], **options: Any) -> None:
    """A client that does this; a server of this process is asked over HTTP, others by their own way."""

    async def session() -> None:
        if not isinstance(server, FastMCP):
            async with Client(server, **options) as client:
                await asyncio.wait_for(do(client), PATIENCE)
            return
        with socket.create_server(("127.0.0.1", 0)) as listening:
            http = uvicorn.Server(
                uvicorn.Config(server.http_app(), log_level="warning", timeout_graceful_shutdown=1, ws="none")
            )
            serving = asyncio.create_task(http.serve(sockets=[listening]))
            try:
                async with Client(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", **options) as client:
                    await asyncio.wait_for(do(client), PATIENCE)
            finally:
                http.should_exit = True
                await serving

    asyncio.run(session())


async def call(client: Any, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """What a tool answers. Fails where it answers with an error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content[0].text
    answer: dict[str, Any] = result.structured_content
    return answer


async def refusal(client: Any, tool: str, /, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return str(result.content[0].text)


@pytest.mark.parametrize("mode", MODES)
def test_an_agent_adapts_a_model_through_the_tools_alone(
    server: Callable[..., Any], tiny_task: TinyTask, mode: str
) -> None:
    task, person = tiny_task(**LEARNABLE), Person()
    told: list[tuple[float, str]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, message or ""))

    async def adapt(client: Any) -> None:
        now = await call(client, "start_run", task=str(task), name="mayors", wait=PATIENCE)
        assert now["condition"] == "waiting" and now["planned"]["round"] == 1 and now["reward"] < 0.5
        looked = await call(client, "evaluate", split="train", rows=4)
        assert looked["rows"] == 4 and looked["failures"]
        assert (await call(client, "try_prompt", question="Who is it?"))["answer"] is not None
        assert (await call(client, "classify_failures"))["total"] == 4
        edited = await call(client, "edit_prompt", parts=["demos"], wait=PATIENCE)
        assert [row["number"] for row in edited["new_rounds"]] == [1] and not person.asked
        result = await client.call_tool(
            "train_lora",
            {"rows": "original", "epochs": 20, "learning_rate": 0.01, "rank": 8, "wait": PATIENCE},
            progress_callback=progress,
        )
        assert not result.is_error, result.content
        trained = result.structured_content
        assert [asked for asked in person.asked if "train_lora on original rows, 20 epochs" in asked]
        assert trained["new_rounds"][0]["kept"] and trained["reward"] > now["reward"]
        assert "Round 2, train_lora" in result.content[0].text
        assert (await call(client, "compare", first=0, second=2))["better"] > 0
        why = await call(client, "explain_round", round=2)
        assert "Decided by user" in why["text"] and "Kept" in why["text"]
        back = await call(client, "rollback", to_round=1, wait=PATIENCE)
        assert back["reward"] == edited["reward"]
        again = await call(client, "extend", rounds=5, wait=PATIENCE)
        assert again["limits"]["rounds"] == 5 and "rounds 5" in person.asked[-1]
        await call(client, "rollback", to_round=2, wait=PATIENCE)
        end = await call(client, "finish", wait=PATIENCE)
        assert end["condition"] == "finished" and end["test_after"]["reward"] > end["test_before"]["reward"]
        assert "test rows are opened" in person.asked[-1]
        found = await call(client, "report")
        assert Path(found["html"]).is_file() and Path(found["adapter"], "adapter_model.safetensors").is_file()
        assert found["prompt"]["system"] == "Answer."
        listed = await call(client, "list_runs")
        assert [(run["run"], run["condition"]) for run in listed["runs"]] == [("mayors", "finished")]
        assert "set other limits with `extend`" in await refusal(client, "edit_prompt")

    talk(server(), adapt, mode=mode, elicitation_callback=person)
    if mode == "legacy":  # fastmcp tells no progress to the other client where there is no wire between them
        assert any("training LoRA" in message for _, message in told)
    assert [done for done, _ in told] == sorted({done for done, _ in told}), "progress only grows"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "answer",
    [
        ElicitResult(action="decline"),
        ElicitResult(action="cancel"),
        ElicitResult(action="accept", content={"approve": False}),
    ],
    ids=["declined", "cancelled", "unticked"],
)
def test_after_a_no_nothing_is_done(
    server: Callable[..., Any], tiny_task: TinyTask, mode: str, answer: ElicitResult
) -> None:
    person = Person(answer)

    async def ask(client: Any) -> None:
        await call(client, "start_run", task=str(tiny_task()), wait=PATIENCE)
        for tool in ("train_lora", "finish"):
            assert "the user said no" in await refusal(client, tool)
        assert "the user said no" in await refusal(client, "extend", rounds=9)
        now = await call(client, "status")
        assert (now["condition"], now["rounds"], now["limits"]["rounds"]) == ("waiting", 0, 3)

    talk(server(), ask, mode=mode, elicitation_callback=person)
    assert len(person.asked) == 3


@pytest.mark.parametrize("mode", MODES)
def test_a_yes_holds_for_the_plan_that_was_shown_alone(
    server: Callable[..., Any], tiny_task: TinyTask, tmp_path: Path, mode: str
) -> None:
    """While the person thinks, somebody else rejects the plan, and another one waits under the same number."""

    class Slow(Person):
        async def __call__(self, context: object, params: ElicitRequestFormParams) -> ElicitResult:
            if not self.asked:
                await asyncio.to_thread(reject)
            return await super().__call__(context, params)

    def reject() -> None:
        steering = live(RunFolder.open(tmp_path / "runs" / "mayors"))
        assert steering is not None
        steering.answer({"decisions": [{"type": "reject", "message": "no"}]})
        status = steering.status()
        while status.condition == "working":
            status = steering.status(status.version, 5.0)

    person = Slow()

    async def ask(client: Any) -> None:
        task = str(tiny_task(**LEARNABLE))
        before = await call(client, "start_run", task=task, name="mayors", wait=PATIENCE)
        if mode == "legacy":
            said = await refusal(client, "continue_run", rounds=2, wait=PATIENCE)
            assert "has moved on while the user was asked" in said
            now = await call(client, "status")
            assert now["planned"] != before["planned"]
        else:  # the second call brings no answer to what waits now: the person is asked about that
            await call(client, "continue_run", rounds=2, wait=PATIENCE)
            assert len(person.asked) == 2 and person.asked[0] != person.asked[1]

    talk(server(), ask, mode=mode, elicitation_callback=person)


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_cannot_ask_is_told_the_ways_out(
    server: Callable[..., Any], tiny_task: TinyTask, mode: str
) -> None:
    async def ask(client: Any) -> None:
        await call(client, "start_run", task=str(tiny_task()), wait=PATIENCE)
        said = await refusal(client, "train_lora", epochs=2)
        assert "--allow train_lora" in said and "nesylora chat" in said and "2 epochs" in said
        assert (await call(client, "status"))["rounds"] == 0

    talk(server(), ask, mode=mode)


def test_what_the_server_was_started_to_allow_is_not_asked(server: Callable[..., Any], tiny_task: TinyTask) -> None:
    async def work(client: Any) -> None:
        await call(client, "start_run", task=str(tiny_task(**LEARNABLE)), wait=PATIENCE)
        now = await call(client, "continue_run", rounds=2, wait=PATIENCE)
        assert now["rounds"] >= 1 and now["condition"] == "waiting"
        assert (await call(client, "finish", wait=PATIENCE))["condition"] == "finished"

    talk(server(ASKING), work)


def test_the_end_of_the_server_leaves_a_run_that_somebody_else_works_on(
    server: Callable[..., Any], tiny_task: TinyTask, tmp_path: Path
) -> None:
    theirs = new_run(tiny_task(), [], tmp_path / "runs", "theirs")

    async def visit(client: Any) -> None:
        await call(client, "start_run", task=str(tiny_task()), name="ours", wait=PATIENCE)
        assert (await call(client, "edit_prompt", run="theirs", wait=PATIENCE))["rounds"] == 1

    with drive(theirs, supervised=True, report=write_report) as driver:
        talk(server(), visit)
        assert driver.status().condition == "waiting" and live(theirs)
        ours = live(RunFolder.open(tmp_path / "runs" / "ours"))
        assert ours is None or ours.status().condition == "stopped", "the one that it began is left"


def test_a_run_that_somebody_else_has_is_said_to_be_in_use_and_hides_no_other(
    server: Callable[..., Any], tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, deaf = (new_run(tiny_task(), [], tmp_path / "runs", name) for name in ("held", "deaf"))
    path = Path(tempfile.mkdtemp(dir="/tmp")) / "deaf.sock"
    monkeypatch.setattr("graphs.control.client.ANSWERS", 1.0)

    async def look(client: Any) -> None:
        listed = {run["run"]: run for run in (await call(client, "list_runs"))["runs"]}
        assert listed["held"]["condition"] == listed["deaf"]["condition"] == "working"
        assert "in use by process" in listed["held"]["trouble"] and "does not answer" in listed["deaf"]["trouble"]
        now = await call(client, "status", run="held", wait=PATIENCE)
        assert now["next"] == "Nothing can be done here: wait for whoever has it."

    with held.locked(), socket.socket(socket.AF_UNIX) as listens:
        listens.bind(str(path))
        listens.listen()
        process.note(deaf, process.Process(pid=os.getpid(), socket=str(path)))
        talk(server(), look)


def test_a_call_comes_back_in_time_and_the_work_goes_on(server: Callable[..., Any], tiny_task: TinyTask) -> None:
    async def hurry(client: Any) -> None:
        now = await call(client, "start_run", task=str(tiny_task()), wait=0)
        assert now["condition"] == "working" and now["next"] == "It works; ask `status` with `wait`."
        assert "look once it waits" in await refusal(client, "evaluate")
        assert "No round of run" in await refusal(client, "explain_round")
        assert (await call(client, "status", wait=PATIENCE))["condition"] == "waiting"

    talk(server(), hurry)


def test_a_task_is_drafted_and_run(
    server: Callable[..., Any], tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = tmp_path / "names.jsonl"
    rows.write_text("".join(json.dumps({"question": f"Name {n}?", "answer": f"N{n}"}) + "\n" for n in range(20)))
    model = str(tiny_model("llama"))

    async def draft(client: Any) -> None:
        proposed = await call(client, "draft_task", rows=str(rows), model=model, try_rows=True)
        assert proposed["counts"] == {"train": 12, "validation": 4, "test": 4} and proposed["written"] == ""
        assert len(proposed["tried"]) == 5
        written = await call(client, "draft_task", rows=str(rows), model=model, into=str(tmp_path / "names"))
        task = Path(written["written"])
        assert task == tmp_path / "names" / "task.yaml" and task.read_text() == written["yaml"]
        now = await call(client, "start_run", task=str(task), overrides=["lora.rank=4"], wait=PATIENCE)
        assert now["condition"] == "waiting"

    talk(server(), draft)


def test_what_cannot_be_done_is_said_in_a_sentence(server: Callable[..., Any], tmp_path: Path) -> None:
    async def err(client: Any) -> None:
        assert "there are no runs" in await refusal(client, "status")
        for path in ("../../etc", "..", "a\0b"):
            assert "without a path" in await refusal(client, "status", run=path)
        assert "epochs: Input should be less than or equal to 20" in await refusal(client, "train_lora", epochs=99)
        assert "no such setting; there are rows, epochs" in await refusal(client, "train_lora", epoch=1)
        assert "task.yaml" in await refusal(client, "start_run", task=str(tmp_path / "nowhere"))
        (tmp_path / "valley").mkdir()
        assert f"did you mean {tmp_path / 'valley'}?" in await refusal(
            client, "start_run", task=str(tmp_path / "vally")
        )
        assert "no such file" in await refusal(client, "draft_task", rows=str(tmp_path / "rows.csv"))

    talk(server(), err)


def test_what_agents_and_people_read_names_the_tools_that_there_are(server: Callable[..., Any]) -> None:
    skill = (ROOT / "skills" / "nesylora" / "SKILL.md").read_text()
    page = (ROOT / "docs" / "mcp.md").read_text()
    head = yaml.safe_load(skill.split("---")[1])
    assert head["name"] == "nesylora" and len(head["description"]) <= 1024
    words = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", page + skill))

    async def look(client: Any) -> None:
        tools = (await client.list_tools()).tools
        names = {tool.name for tool in tools}
        settings = {key for tool in tools for key in tool.input_schema["properties"]}
        assert names <= words, "every tool is named"
        answers = set(RunView.model_fields) | {"nesylora"}
        assert {word for word in words if "_" in word} <= names | settings | answers
        assert all(tool.description and tool.annotations for tool in tools)

    talk(server(), look)


def test_over_standard_input_and_output_a_run_outlives_its_client(tiny_task: TinyTask, tmp_path: Path) -> None:
    root, person = tmp_path / "runs", Person()
    line = ["-P", "-m", "nesylora", "mcp", "--runs", str(root), "--allow", "finish"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    parameters = StdioServerParameters(command=sys.executable, args=line, env=env, cwd=tmp_path)

    told: list[str] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    async def begin(client: Any) -> None:
        started = {"task": str(tiny_task(**LEARNABLE)), "name": "mayors", "wait": PATIENCE}
        result = await client.call_tool("start_run", started, progress_callback=progress)
        assert result.structured_content["condition"] == "waiting" and any("answering" in what for what in told)
        trained = await call(client, "train_lora", epochs=20, learning_rate=0.01, rank=8, wait=0)
        assert trained["condition"] == "working" and person.asked

    async def go_on(client: Any) -> None:
        now = await call(client, "status", wait=PATIENCE)
        assert now["condition"] == "waiting" and now["rounds"] == 1
        assert (await call(client, "finish", wait=PATIENCE))["condition"] == "finished"

    try:
        talk(parameters, begin, elicitation_callback=person)
        talk(parameters, go_on)
    finally:
        for folder in runs(root):
            if (remote := live(folder)) and (pid := remote.status().pid):
                with suppress(ProcessLookupError):  # it has ended just now
                    os.kill(pid, signal.SIGKILL)


def test_over_http_only_who_has_the_token_is_let_in(tmp_path: Path) -> None:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-P", "-m", "nesylora", "mcp", "--runs", str(tmp_path), "--http", str(port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NESYLORA_MCP_TOKEN": "of this test"}
    server = subprocess.Popen(line, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    url, bearer = f"http://127.0.0.1:{port}/mcp", {"Authorization": "Bearer of this test"}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}

    def status(**headers: str) -> int:
        accepts = {"Accept": "application/json, text/event-stream"}
        return httpx2.post(url, json=message, headers=accepts | headers, timeout=60).status_code

    async def look(client: Any) -> None:
        assert (await call(client, "list_runs")) == {"runs": []}

    try:
        said = server.stderr.readline() if server.stderr else ""
        assert f"http://127.0.0.1:{port}/mcp" in said and "Bearer $NESYLORA_MCP_TOKEN" in said
        assert "of this test" not in said, "the user's own token goes into no log"
        wait_for(port)
        assert status() == status(Authorization="Bearer another") == 401
        assert status(**bearer, Host="evil.example") in (403, 421)
        assert status(**bearer, Origin="http://evil.example") == 403
        talk(streamable_http_client(url, http_client=httpx2.AsyncClient(headers=bearer)), look)
    finally:
        server.terminate()
        server.communicate(timeout=60)


def wait_for(port: int) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the server does not listen")
