"""Runs from Python: begun with nested settings, watched, stopped, gone on with, extended."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nesylora
from agent.errors import BadInput
from agent.records.events import Event, WorkProgressed
from eval.tasks.task import as_overrides, load_config
from graphs.context import new_run
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
QUICK = {"budget": {"rounds": 1}, "policy": "prompt-only", "recall": {"prompts": 0}}


def test_the_documents_examples_run(tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a script beside `my_task/`."""
    shutil.copytree(tiny_task(policy="prompt-only"), tmp_path / "my_task")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, "python.md", "exec"), names)
    first = RunFolder.open(tmp_path / "runs" / "first")
    assert [outcome.seen for outcome in first.outcomes()] == [0, 1] and len(first.rounds()) == 2
    assert names["adapted"].run == (tmp_path / "runs" / "streamed").resolve()


CHANGES: dict[str, Any] = {
    "budget": {"rounds": 9, "minutes": None},
    "lora": {"learning_rate": 1e-6, "options": {"rank_pattern": {"model.layers.0": 4}, "exclude_modules": ["lm_head"]}},
    "style": {0: {"text": "A=b: 'c' #d\n"}},
    "prompt": {"system": "null", "demos": [{"question": "1: {a}?", "answer": "[2]"}]},
    "recall.prompts": 0,
}


def test_nested_settings_mean_what_they_say(tiny_task: TinyTask) -> None:
    config = load_config(tiny_task(), as_overrides(CHANGES))
    assert (config.budget.rounds, config.budget.minutes, config.lora.learning_rate) == (9, None, 1e-6)
    assert config.lora.options == CHANGES["lora"]["options"] and config.lora.rank == 4, "what is not named stays"
    assert config.style[0].model_dump()["text"] == "A=b: 'c' #d\n"
    assert config.prompt.system == "null" and config.prompt.demos[0].answer == "[2]"
    assert config.recall.prompts == 0
    with pytest.raises(BadInput, match=r"override 'lora.rnak=3': unknown key 'rnak'; did you mean 'rank'"):
        load_config(tiny_task(), as_overrides({"lora": {"rnak": 3}}))
    with pytest.raises(BadInput, match=r"give a list, such as \['a.b=c'\], or a dictionary"):
        nesylora.adapt(tiny_task(), overrides="a.b=c")


def test_a_run_that_was_left_early_goes_on_to_the_same_end(tiny_task: TinyTask, tmp_path: Path) -> None:
    """What is told covers the whole run, and a listener gets the same of the rest."""
    task = tiny_task()
    whole = nesylora.adapt(task, overrides=QUICK, runs=tmp_path / "runs", name="whole")
    events = nesylora.stream(task, overrides=QUICK, runs=tmp_path / "runs", name="left")
    seen = []
    for event in events:
        seen.append(event.kind)
        if event.kind == "baseline":
            break
    events.close()  # type: ignore[attr-defined]
    assert seen[0] == "run" and "progress" in seen
    left = RunFolder.open(tmp_path / "runs" / "left")
    assert left.baseline() is not None and left.outcome() is None
    told: list[Event] = []
    adapted = nesylora.resume(left.path, listener=told.append)
    assert adapted.outcome.best == whole.outcome.best and adapted.prompt == whole.prompt
    assert [event.kind for event in told if not isinstance(event, WorkProgressed)][-1] == "finish"
    again = list(nesylora.stream(left.path))
    assert [event.kind for event in again] == [] and nesylora.resume(left.path) == adapted


def test_a_run_is_extended_and_says_that_its_test_was_seen(tiny_task: TinyTask, tmp_path: Path) -> None:
    adapted = nesylora.adapt(tiny_task(), overrides=QUICK, runs=tmp_path / "runs")
    further = nesylora.extend(adapted.run, rounds=2, minutes=60)
    run = RunFolder.open(adapted.run)
    assert further.run == adapted.run and len(run.rounds()) == 2 and further.outcome.seen == 1
    limits = run.limits()
    assert limits is not None and (limits.rounds, limits.minutes) == (2, 60)
    with pytest.raises(BadInput, match="no limit 'round': did you mean rounds"):
        nesylora.extend(adapted.run, round=3)


def test_what_stops_a_run_is_raised_by_all_three(tiny_task: TinyTask, tmp_path: Path) -> None:
    task, runs = (
        tiny_task(data={"train": "train.jsonl", "validation": "lost.jsonl", "test": "test.jsonl"}),
        tmp_path / "r",
    )
    calls: list[Callable[[], object]] = [
        lambda: nesylora.adapt(task, runs=runs),
        lambda: list(nesylora.stream(task, runs=runs)),
        lambda: nesylora.resume(runs / "none"),
    ]
    for call in calls:
        with pytest.raises(BadInput):
            call()
    run = new_run(tiny_task(), runs=runs, name="changed").path
    row = {"question": "New?", "answer": "New"}
    (tmp_path / "task" / "validation.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BadInput, match="have changed since run changed began"):
        list(nesylora.stream(run))
