"""What the model's tokenizer makes of a task's rows: which are too long for its window, and which ends they carry."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from agent.errors import BadInput
from agent.records import Example, Fitting, Prompt, Split
from eval.tasks import Task

NAMED = 5  # rows that a sentence names


class Renders(Protocol):
    """What makes a model's token ids of rows."""

    @property
    def ends(self) -> Sequence[str]:
        """Texts of the tokens that end a turn."""
        ...

    def prompt_ids(self, prompt: Prompt, example: Example) -> Sequence[int]: ...


def measure(task: Task, render: Renders, window: int) -> Fitting:
    """The fitting of a task to its model.

    Args:
        window: most tokens of a row, question and answer together.

    Raises:
        BadInput: rows are too long, and the task refuses such; or none is left of a split.
    """
    new, prompt = task.config.generation.max_new_tokens, task.config.prompt.prompt()
    splits = task.validation, task.test
    long = {
        row.name: tokens
        for rows in splits
        for row in rows
        if (tokens := len(render.prompt_ids(prompt, row)) + new) > window
    }
    fitting = Fitting(
        window=window, too_long=tuple(long), left_out=task.config.data.too_long == "leave_out",
        ends=tuple(end for end in render.ends if any(end in row.answer for row in _all(task))),
    )  # fmt: skip
    if not long:
        return fitting
    worst = sorted(long, key=lambda name: -long[name])[:NAMED]
    longest = f"{', '.join(f'{name} ({long[name]} tokens)' for name in worst)}{', …' if len(long) > NAMED else ''}"
    what = f"{_counted(task, fitting)} do not fit into the {window} tokens of the model's window: {longest}"
    if task.config.data.too_long == "refuse":
        raise BadInput(
            f"With the seed prompt and {new} new tokens, {what}. Shorten them, lower generation.max_new_tokens, or set "
            "data.too_long to leave_out, or to wrong, which counts them as wrong."
        )
    if fitting.left_out and any(all(row.name in long for row in rows) for rows in splits):
        raise BadInput(f"With the seed prompt and {new} new tokens, {what}. No row of a split would be left.")
    return fitting


def fitted(task: Task, fitting: Fitting) -> Task:
    """The task without the rows that are left out, its answers without ends of turns."""
    gone = set(fitting.too_long) if fitting.left_out else set()

    def rows(split: Split) -> tuple[Example, ...]:
        return tuple(_without_ends(row, fitting.ends) for row in task.rows(split) if row.name not in gone)

    if not gone and not fitting.ends:
        return task
    return replace(task, train=rows("train"), validation=rows("validation"), test=rows("test"))


def remarks(task: Task, fitting: Fitting) -> list[str]:
    """Sentences about what the fitting does to the task's rows."""
    said = []
    if fitting.too_long:
        fate = "are left out" if fitting.left_out else "count as wrong"
        said.append(f"{_counted(task, fitting)} are too long for the model's window and {fate} (data.too_long).")
    if fitting.ends:
        count = sum(any(end in row.answer for end in fitting.ends) for row in _all(task))
        named = " and ".join(fitting.ends)
        said.append(f"{count} answers hold {named}, which ends a turn of this model by itself: it is taken off.")
    return said


def _all(task: Task) -> tuple[Example, ...]:
    return (*task.train, *task.validation, *task.test)


def _counted(task: Task, fitting: Fitting) -> str:
    measured = {"validation": task.validation, "test": task.test}
    counts = {split: sum(row.name in fitting.too_long for row in rows) for split, rows in measured.items()}
    return " and ".join(f"{count} of {len(measured[split])} {split} rows" for split, count in counts.items() if count)


def _without_ends(row: Example, ends: Sequence[str]) -> Example:
    answer = row.answer
    for end in ends:
        answer = answer.replace(end, "")
    return row if answer == row.answer else row.model_copy(update={"answer": answer.strip()})
