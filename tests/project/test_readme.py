"""The README tells the truth: its commands parse, its task is one, its tree is the tree."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.decisions.cli import add_commands
from eval.tasks.task import load_task
from graphs.conversation.commands import HELP
from tests.fixtures.learnable import TinyTask
from ui.cli import parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("nesylora ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_parse(line: str) -> None:
    assert callable(parser([add_commands]).parse_args(shlex.split(line, comments=True)[1:]).do)


@pytest.mark.parametrize("target", re.findall(r"make ([a-z-]+)", README))
def test_its_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"> (/[a-z]+)", README))))
def test_its_chat_commands_exist(command: str) -> None:
    assert command in HELP


TASK, LLM = blocks("yaml")


@pytest.mark.parametrize("text", [TASK, yaml.safe_dump(yaml.safe_load(TASK) | yaml.safe_load(LLM))])
def test_its_example_task_can_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "task.yaml").write_text(text)
    for split in ("train", "validation", "test"):
        row = {"question": f"What is the capital of {split}?", "answer": "Paris"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    task = load_task(tmp_path)
    assert task.config.name == yaml.safe_load(text)["name"]
    assert task.scorers.full_marks(task.scorers.show("Paris"), task.train[0])


def test_its_python_runs(tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of it, one after the other, as a script beside `my_task/`."""
    shutil.copytree(tiny_task(budget={"rounds": 1}), tmp_path / "my_task")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "readme"}  # where its TypedDict looks up its annotations
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["adapted"].outcome
    assert names["app"].get_state(names["config"]).next == ("adapt",), "it waits for the next approval"
    assert "train_lora" in [tool.name for tool in names["tools"]]


def test_its_tree_is_the_tree() -> None:
    [tree] = re.findall(r"## The house\n\n(.*?)\n\n", README, flags=re.DOTALL)
    named = re.findall(r"^    (\S+)  ", tree, flags=re.MULTILINE)
    assert all((ROOT / name).exists() for name in named)
    folders = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert folders <= set(named)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)


def test_every_shipped_task_can_be_read() -> None:
    tasks = list((ROOT / "tasks").glob("*/task.yaml"))
    assert tasks and all(load_task(task).train for task in tasks)
