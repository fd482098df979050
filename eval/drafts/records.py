"""A drafted task, and what its user may settle beforehand."""

import os
import re
from pathlib import Path
from typing import Any

from pydantic import Field

from agent.errors import BadInput
from agent.records.base import Record
from agent.records.examples import Split


class DraftOptions(Record):
    """What the user settles; what is left out is proposed."""

    name: str = Field("", description="of the task; by default that of its folder, or else of the file")
    model: str = "smollm2-135m"
    question: str = Field("", description="column of the question")
    input: str | None = Field(None, description='column that goes on from the question; "" takes none')
    answer: str = Field("", description="column of the answer")
    messages: str = Field("", description="column of chat messages")
    content: str = Field("", description="kind of the content scorer")
    system: str = Field("", description="system text of the seed prompt")
    target: float | None = Field(None, gt=0, le=1)
    rounds: int | None = Field(None, ge=0, le=10_000)
    minutes: float | None = Field(None, gt=0)

    def named_for(self, folder: Path | None) -> "DraftOptions":
        """With the name of the folder that the task is written to, where it has none yet."""
        name = plain_name(folder.expanduser().resolve().name) if folder and not self.name else self.name
        return self.model_copy(update={"name": name})


def plain_name(text: str) -> str:
    """A text as the name of a task: letters, digits, - and _; may be empty."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:64]


class TriedRow(Record):
    """A train row, and what the model answers to it with the seed prompt."""

    question: str
    wanted: str
    output: str
    content: float
    style: float
    remarks: tuple[str, ...] = ()


class TaskDraft(Record):
    """A task as proposed, with the reasons; nothing is on disk before `write`.

    Args:
        columns: question, input, answer or messages, each with its column of the file.
        unused: columns of the file that are neither asked nor answered.
        why: a sentence for `columns`, `splits`, `system`, `content`, `style`, `target` and `budget`.
        commonest: reward of always giving the commonest train answer, on validation rows; None: not to be known.
        yaml: the task.yaml, with comments.
        rows: what the three files will hold.
    """

    name: str
    source: str
    format: str
    found: int = Field(description="rows of the file")
    columns: dict[str, str]
    unused: tuple[str, ...] = ()
    counts: dict[Split, int]
    model: str
    system: str
    content: tuple[dict[str, Any], ...]
    style: tuple[dict[str, Any], ...] = ()
    target: float
    commonest: float | None = None
    rounds: int
    minutes: float
    why: dict[str, str]
    warnings: tuple[str, ...] = ()
    yaml: str
    rows: dict[Split, tuple[dict[str, Any], ...]] = Field(repr=False)
    tried: tuple[TriedRow, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write the rows and then the task.yaml into a folder, which is made. Returns the task.yaml.

        Raises:
            BadInput: the folder has one of these files already, or cannot be written.
        """
        import json

        texts = {
            f"{split}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            for split, rows in self.rows.items()
        }
        texts["task.yaml"] = self.yaml
        if there := [name for name in texts if (folder / name).exists()]:
            raise BadInput(f"{folder} has {' and '.join(there)} already; name another folder, or remove them")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                unfinished = folder / f".{name}.part"
                unfinished.write_text(text, encoding="utf-8", newline="\n")
                os.replace(unfinished, folder / name)
        except OSError as error:
            raise BadInput(f"{folder}: {error.strerror}; name a folder that can be written") from error
        return folder / "task.yaml"
