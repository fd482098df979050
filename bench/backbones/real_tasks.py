"""Task folders over data of others that the user has: BIG-Bench Hard's rows, and grade-school maths.

The data stay where they are: a task names them by their path. A data set is a folder of its name, anywhere below the
folder that is given, with train.jsonl, validation.jsonl and test.jsonl, each row with `question` and `answer`.
"""

from pathlib import Path
from typing import NamedTuple

import yaml

from agent.errors import BadInput
from eval.tasks.splits import SPLITS
from memory.storage.disk import write_atomically

Scorer = dict[str, object]
LABEL: tuple[Scorer, ...] = ({"kind": "starts_with", "text": "ANSWER: "}, {"kind": "words", "most": 2})
RESULT: Scorer = {
    "kind": "regex",
    "pattern": r"####\s*-?\$?[\d.,]+\s*$",
    "say": 'End your answer with "#### " and the number.',
}


class RealTask(NamedTuple):
    """What a task.yaml says beside the paths. Sizes are for two cores; `style` is asked for, as users would."""

    about: str
    system: str
    content: Scorer
    style: tuple[Scorer, ...] = LABEL  # which these rows do not show
    sizes: tuple[int, int, int] = (60, 40, 50)  # of train, validation and test
    new_tokens: int = 8
    epochs: int = 6


TASKS = {
    "boolean_expressions": RealTask(
        about="Boolean expressions of BIG-Bench Hard (MIT).",
        system="Work out the Boolean expression. Is it True or False?",
        content={"kind": "exact", "extract": r"(?i)\b(true|false)\b"},
    ),
    "hyperbaton": RealTask(
        about="The usual order of English adjectives, of BIG-Bench Hard (MIT).",
        system="Choose the sentence whose adjectives stand in the usual order. Answer with its letter.",
        content={"kind": "choice", "letters": "AB"},
    ),
    "object_counting": RealTask(
        about="Counting objects, of BIG-Bench Hard (MIT).",
        system="Count the objects that are asked for. Answer with the number.",
        content={"kind": "number"},
    ),
    "gsm8k": RealTask(
        about="Grade-school maths, GSM8K (MIT), with the working before the result.",
        system="Solve the problem step by step.",
        content={"kind": "number"},
        style=(RESULT,),
        sizes=(48, 32, 50),
        new_tokens=96,
        epochs=3,
    ),
}


def make_tasks(data: Path, into: Path) -> list[Path]:
    """Write a task.yaml for every data set that is found, each in a folder of its name; returns these folders.

    Raises:
        BadInput: none is found, or one is there twice or lacks a split.
    """
    found = {name: folder for name in TASKS if (folder := _folder(data, name))}
    if not found:
        raise BadInput(f"{data} has none of these folders, at any depth: {', '.join(TASKS)}.")
    for name, folder in found.items():
        text = yaml.safe_dump(_task(name, folder), sort_keys=False, allow_unicode=True, width=110)
        write_atomically(into / name / "task.yaml", text)
    return [into / name for name in found]


def _task(name: str, folder: Path) -> dict[str, object]:
    real = TASKS[name]
    rows = {str(split): str((folder / f"{split}.jsonl").resolve()) for split in SPLITS}
    limit = {str(split): size for split, size in zip(SPLITS, real.sizes, strict=True)}
    return {
        "name": name,
        "about": real.about,
        "data": {**rows, "limit": limit},
        "prompt": {"system": real.system},
        "content": [real.content],
        "style": list(real.style),
        "target": 0.9,
        "budget": {"rounds": 4},
        "generation": {"max_new_tokens": real.new_tokens},
        "lora": {"rank": 8, "epochs": real.epochs},
    }


def _folder(data: Path, name: str) -> Path | None:
    """Where the rows of a data set are."""
    folders = [folder for folder in sorted(data.rglob(name)) if folder.is_dir()]
    if len(folders) > 1:
        raise BadInput(f"{data} has {len(folders)} folders named {name}; give the one that holds the data you mean.")
    for folder in folders:
        if lacking := [split for split in SPLITS if not (folder / f"{split}.jsonl").is_file()]:
            raise BadInput(f"{folder} has no {lacking[0]}.jsonl.")
    return folders[0] if folders else None
