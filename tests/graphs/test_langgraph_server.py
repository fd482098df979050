"""LangGraph's own server on our langgraph.json, driven by its own client: asked, answered, on one loaded model."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graphs.approval import APPROVE
from graphs.control.client import live
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask

ROOT = Path(__file__).parents[2]
REJECT = {"decisions": [{"type": "reject"}]}
PATIENCE = 120.0  # seconds until the server is up, or a request has ended

if not all(
    map(importlib.util.find_spec, ("langgraph_api", "langgraph_cli", "langgraph_runtime_inmem", "langgraph_sdk"))
):
    pytest.skip("LangGraph's server is not installed: pip install 'nesylora[server]'", allow_module_level=True)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """`langgraph dev` on a free port. It writes into its working folder, so that is not the checkout."""
    settings = json.loads((ROOT / "langgraph.json").read_text())
    settings["dependencies"] = [str(ROOT)]
    settings["graphs"] = {name: str(ROOT / place) for name, place in settings["graphs"].items()}
    (tmp_path / "langgraph.json").write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "langgraph_cli", "dev", "--host", "127.0.0.1", "--port", str(port), "--no-browser",
        "--no-reload",
    ]  # fmt: skip
    env = {**os.environ, "LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1"}
    log = tmp_path / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(server, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def _wait(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx.get(f"{url}/ok", timeout=5).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.3)
    pytest.fail(f"the server did not come up: {log.read_text()[-2000:]}")


def test_a_supervised_run_through_langgraph_sdk(url: str, tiny_task: TinyTask, tmp_path: Path) -> None:
    from langgraph_sdk import get_sync_client

    client = get_sync_client(url=url, api_key=None, timeout=PATIENCE)
    [assistant] = client.assistants.search(graph_id="adapt")
    thread = client.threads.create()["thread_id"]
    context = {
        "task": str(tiny_task()), "runs": str(tmp_path / "runs"), "supervised": True, "budget": {"rounds": 1},
        "overrides": ["policy=prompt-only"],
    }  # fmt: skip
    streamed: list[dict[str, Any]] = []

    def go(**request: Any) -> dict[str, Any]:
        """One request, a new context with it; what it streams is added to `streamed`."""
        parts = client.runs.stream(
            thread, assistant["assistant_id"], stream_mode=["custom"], context=context, **request
        )
        for part in parts:
            assert part.event != "error", part.data
            streamed.extend([part.data] if part.event == "custom" else [])
        return dict(client.threads.get_state(thread))

    asked = go(input={})["interrupts"][0]["value"]
    assert asked["action_requests"][0]["name"] == asked["review_configs"][0]["action_name"] == "edit_prompt"
    assert asked["review_configs"][0]["allowed_decisions"] == ["approve", "edit", "reject"]
    assert client.threads.get(thread)["status"] == "interrupted"
    assert "the answer is True" in go(command={"resume": True})["interrupts"][0]["value"]["fault"]
    end = go(command={"resume": APPROVE})["interrupts"][0]["value"]
    assert end["action_requests"][0]["name"] == "stop"
    values = go(command={"resume": APPROVE})["values"]
    assert client.threads.get(thread)["status"] == "idle"
    run = RunFolder.open(tmp_path / "runs" / f"thread-{thread}")
    outcome = run.outcome()
    assert outcome and values["outcome"] == outcome.model_dump(mode="json") and len(run.rounds()) == 1
    assert Path(values["report"]).stat().st_size > 1000
    loads = [event for event in streamed if event.get("what") == "loading the model" and not event["done"]]
    assert len(loads) == 1, "four requests, one model"
    assert [event["kind"] for event in streamed].count("finish") == 1


def test_a_chat_about_a_run_through_langgraph_sdk(url: str, tiny_task: TinyTask, tmp_path: Path) -> None:
    from langgraph_sdk import get_sync_client

    client = get_sync_client(url=url, api_key=None, timeout=PATIENCE)
    thread = client.threads.create()["thread_id"]
    context = {
        "task": str(tiny_task()), "runs": str(tmp_path / "runs"), "overrides": ["policy=prompt-only"],
        "budget": {"rounds": 1},
    }  # fmt: skip

    def go(**request: Any) -> dict[str, Any]:
        parts = client.runs.stream(thread, "chat", stream_mode=["values"], context=context, **request)
        for part in parts:
            assert part.event != "error", part.data
        return dict(client.threads.get_state(thread))

    def say(text: str) -> dict[str, Any]:
        return go(input={"messages": [{"role": "user", "content": text}]})

    def answer(state: dict[str, Any]) -> str:
        return str(state["values"]["messages"][-1]["content"])

    run = RunFolder(tmp_path / "runs" / f"thread-{thread}")
    try:
        assert "Round 1" in answer(say("what would you do first?")) and not run.rounds()
        assert answer(say("yes")) and len(run.rounds()) == 1
        [asked] = say("end the run")["interrupts"]
        assert "test" in asked["value"]["action_requests"][0]["description"] and run.outcome() is None
        assert "Nothing was done" in answer(go(command={"resume": REJECT})) and run.outcome() is None
        say("end the run")
        assert "finished" in answer(go(command={"resume": APPROVE}))
        assert run.outcome()
    finally:
        if (remote := live(run)) and (pid := remote.status().pid):
            os.kill(pid, signal.SIGKILL)
