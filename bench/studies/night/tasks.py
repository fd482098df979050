"""The three tasks of the night: two by the rules alone, one whose prompts an LLM edits."""

import shutil
from pathlib import Path
from typing import NamedTuple

import yaml

from agent.example_tasks import shipped

KEY = "NIGHT_KEY"  # the environment variable that holds the LLM's key
PRICE = {"input": 0.4, "output": 1.6}  # USD per million tokens


class Planned(NamedTuple):
    """A task that ships, with what is changed in its task.yaml."""

    source: str
    changes: dict[str, object]


def planned(url: str) -> list[Planned]:
    """The night's tasks.

    None is limited by minutes: seconds that a fault takes would decide what is done. Two have a target that they
    hardly reach, so that they work until their rounds are used up.

    Args:
        url: of the LLM.
    """
    llm = {"model": "scripted", "base_url": url, "key_variable": KEY, "patience": 3600, "price": PRICE}
    edit = {"editor": "textgrad", "minibatch": 12, "proposals": 4, "demos": 4}
    return [
        Planned("valley", {"budget": {"rounds": 6, "train_tokens": 100_000}}),
        Planned(
            "practice/masters",
            {"target": 1.0, "budget": {"rounds": 10, "usd": 1.0}, "policy": "alternate every 1", "edit": edit,
             "llm": llm},
        ),
        Planned("office/queues", {"target": 1.0, "budget": {"rounds": 4}}),
    ]  # fmt: skip


def write_tasks(folder: Path, url: str, model: str = "", rounds: int | None = None) -> list[Path]:
    """Folders of the night's tasks under `folder`, in the order in which they are worked on.

    Args:
        model: in place of the tasks' own.
        rounds: of each task, in place of what is planned.
    """
    made = []
    for task in planned(url):
        copied = folder / task.source.replace("/", "-")
        if not copied.exists():
            shutil.copytree(shipped(task.source), copied)
            config = yaml.safe_load((copied / "task.yaml").read_text()) | task.changes
            if model:
                config["model"] = model
            if rounds is not None:
                config["budget"]["rounds"] = rounds
            (copied / "task.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        made.append(copied)
    return made
