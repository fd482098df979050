"""What a task would lack at its turn is said before a queue begins, all of it, and nothing is laid out."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config.notify import Notify
from agent.errors import BadInput
from agent.records.queue import NightLimits
from eval.tasks.task import load_config, load_task
from graphs.queue.estimate import estimates
from graphs.queue.making import add_task, new_queue, take_up
from graphs.queue.needs import faults, notify_faults, remarks
from tests.fixtures.command_line import run as command
from tests.fixtures.learnable import TinyTask

Named = Callable[..., Path]
LLM = {"model": "gpt-x", "key_variable": "NO_SUCH_KEY"}
JUDGE = [{"kind": "judge", "rubric": "Is it right?"}]


@pytest.fixture
def named(tiny_task: TinyTask, tmp_path: Path) -> Named:
    """A task of this name, with other settings."""

    def make(name: str, **settings: Any) -> Path:
        return Path(shutil.copytree(tiny_task(name=name, **settings), tmp_path / name))

    return make


def test_a_task_that_cannot_be_used_is_refused_before_anything_begins(named: Named, tmp_path: Path) -> None:
    good, bad, worse = map(named, ("good", "bad", "worse"))
    (bad / "train.jsonl").unlink()
    (worse / "task.yaml").write_text("name: worse\n")
    with pytest.raises(BadInput, match=r"2 of 3 tasks .* nothing was begun") as refused:
        new_queue([good, bad, worse], NightLimits(), tmp_path / "runs")
    assert "train.jsonl" in str(refused.value) and "worse" in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_all_that_tasks_lack_here_is_named_before_a_queue_begins(
    named: Named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphs.queue.needs.find_spec", lambda name: None)
    tasks = [
        named("good"),
        named("tracked", track="mlflow", notify={"command": "no-such-program {text}"}),
        named("judged", content=JUDGE, llm=LLM),
        named("kept", checkpoints="$NO_SUCH_ADDRESS"),
        named("divided", processes=2, device="mps"),
    ]
    with pytest.raises(BadInput) as refused:
        new_queue(tasks, NightLimits(), tmp_path / "runs")
    said = str(refused.value)
    assert said.startswith("4 of 5 tasks cannot be used, so nothing was begun:") and not (tmp_path / "runs").exists()
    for task, words in (
        ("tracked", "track: mlflow is not installed. Run: pip install mlflow"),
        ("tracked", "notify.command: there is no program 'no-such-program'"),
        ("judged", "the environment variable NO_SUCH_KEY is not set, and the run cannot go on"),
        ("kept", "the environment variable NO_SUCH_ADDRESS is not set"),
        ("divided", "there is no device 'mps' here"),
    ):
        assert any(f"{tmp_path / task}: " in line and words in line for line in said.splitlines()), (task, words)


def test_the_same_is_left_out_where_that_is_asked_for_and_refused_where_it_is_added(
    named: Named, tmp_path: Path
) -> None:
    good, bad = named("good"), named("bad", notify={"command": "no-such-program"})
    queue = new_queue([bad, good], NightLimits(), tmp_path / "runs", skip_broken=True)
    assert [row.task for row in queue.read().skipped] == [str(bad)] and len(queue.read().items) == 1
    with pytest.raises(BadInput, match="no-such-program"):
        add_task(queue, bad)
    with pytest.raises(BadInput, match=r"--notify: .*other-program"):
        take_up(queue, NightLimits(), notify="other-program {text}")


def test_what_only_the_model_tells_is_found_by_trying_and_refused_as_well(named: Named, tmp_path: Path) -> None:
    good = named("good")
    deep = {"rank": 4, "epochs": 1, "replay": 0, "targets": ["q_proj"], "options": {"layers_to_transform": [99]}}
    deep_task, odd = named("deep", lora=deep), named("odd", lora=deep | {"targets": ["nope"], "options": {}})
    with pytest.raises(BadInput, match="2 of 3 tasks cannot be used") as refused:
        new_queue([good, deep_task, odd], NightLimits(), tmp_path / "runs")
    assert f"{deep_task}: lora.options.layers_to_transform: there is no layer 99" in str(refused.value)
    assert f"{odd}: lora.targets: 'nope' matches nothing" in str(refused.value)
    queue = new_queue([deep_task, good], NightLimits(), tmp_path / "runs", skip_broken=True)
    assert [item.added.name for item in queue.read().items] == ["good"] and len(queue.read().skipped) == 1


def test_tasks_side_by_side_are_refused_by_the_same(
    named: Named, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [str(named(name, notify={"command": f"no-{name}"})) for name in ("first", "second")]
    assert command(["run", *bad, "--jobs", "2", "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "'no-first'" in said and "'no-second'" in said and not (tmp_path / "runs").exists()


def test_a_run_that_goes_on_by_the_rules_without_an_llm_is_no_fault_but_a_remark(named: Named) -> None:
    config = load_config(named("planned", planner="llm", llm=LLM))
    assert faults(config) == [] and remarks(config) == ["NO_SUCH_KEY is not set, so the LLM cannot be asked"]
    assert "NO_SUCH_KEY" in faults(load_config(named("strict", planner="llm", llm=LLM | {"on_refusal": "stop"})))[0]


def test_a_server_that_does_not_answer_now_is_remarked_on_and_one_that_does_is_not(named: Named) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        settings = {"planner": "llm", "llm": LLM | {"base_url": f"{address}/v1"}, "memory": {"chroma": address}}
        config = load_config(named("planned", **settings))
        assert remarks(config) == []
    assert [said.partition(" now (")[0] for said in remarks(config)] == [
        f"llm.base_url: nothing answers at {address}/v1",
        f"memory.chroma: nothing answers at {address}",
    ]


def test_an_address_whose_port_is_none_is_refused_where_the_task_is_read(named: Named) -> None:
    folder = named("planned", planner="llm", llm=LLM | {"base_url": "http://127.0.0.1:99999/v1"})
    with pytest.raises(BadInput, match=r"llm\.base_url.* is no port"):
        load_config(folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"command": "echo 'no end"}, "cannot be read"),
        ({"command": "$NO_SUCH_FOLDER/tell"}, "no program"),
        ({"url": "$NO_SUCH_HOOK"}, "variable NO_SUCH_HOOK is not set"),
        ({"url": "htp://example.org/secret"}, "is no address"),
        ({"command": "echo {text}", "url": "$HOOK"}, ""),
        ({}, ""),
    ],
)
def test_who_could_not_be_told_is_known_before(
    settings: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", "https://example.org/secret")
    found = " ".join(notify_faults(Notify(**settings)))
    assert words in found and bool(found) == bool(words) and "secret" not in found


def test_an_engines_key_is_a_fault_and_its_address_a_remark(
    tiny_task: TinyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    settings = ["policy=prompt-only", "generation.engine=openai", "generation.url=http://127.0.0.1:9/v1"]
    config = load_task(tiny_task(), [*settings, "generation.key_variable=NO_SUCH_KEY"]).config
    assert faults(config) == ["generation.key_variable: the environment variable NO_SUCH_KEY is not set"]
    assert any("generation.url: nothing answers" in remark for remark in remarks(config))


def test_a_task_that_an_engine_answers_is_not_tried_out_with_our_own_model(tiny_task: TinyTask, tmp_path: Path) -> None:
    settings = ["policy=prompt-only", "generation.engine=openai", "generation.url=http://127.0.0.1:9/v1"]
    [estimate] = estimates([load_task(tiny_task(), settings)], tmp_path)
    assert estimate.start > 0 and estimate.rate is None


@pytest.mark.parametrize("url", ["http://me:word@host/v1", "http://host/v1?key=abc", "http://host/v1#abc"])
def test_an_engines_address_holds_no_secret(tiny_task: TinyTask, url: str) -> None:
    with pytest.raises(BadInput, match="key_variable"):
        load_task(tiny_task(), ["policy=prompt-only", "generation.engine=openai", f"generation.url={url}"])
