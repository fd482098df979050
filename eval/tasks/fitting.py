"""What the model's tokenizer makes of a task's rows: which are too long for its window, and which ends they carry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from agent.errors import BadInput
from agent.protocols import Retriever
from agent.reasoning import spoken
from agent.records.evaluation import Fitting
from agent.records.examples import Demo, Example, Prompt, Split
from eval.tasks.splits import SPLITS
from eval.tasks.task import Task

NAMED = 5  # rows that a sentence names
OFF = "it is taken off"
Shown = TypeVar("Shown", Example, Demo)


class Renders(Protocol):
    """What makes a model's token ids of rows."""

    @property
    def ends(self) -> Sequence[str]:
        """Texts of the tokens that end a turn."""
        ...

    def prompt_ids(self, prompt: Prompt, example: Example) -> Sequence[int]: ...


def measure(
    task: Task, render: Renders, window: int, retriever: Callable[[Sequence[Example]], Retriever] | None = None
) -> Fitting:
    """The fitting of a task to its model.

    Args:
        window: most tokens of a row, question and answer together.
        retriever: looks few-shot examples up among train rows; needed only where the seed prompt retrieves.

    Raises:
        BadInput: answers are nothing but ends of turns, or rows are too long, and the task refuses such; or none is
            left of a split.
    """
    cleaned = _cleaning(task, render.ends)
    clean = fitted(task, cleaned)
    prompt = clean.config.prompt.prompt()
    asked: Sequence[Example] = (*clean.validation, *clean.test)
    if prompt.retrieval and retriever:
        prompt, asked = retriever(clean.train).resolved(prompt, asked)
    new = clean.config.generation.max_new_tokens
    return _windowed(clean, cleaned, window, {row.name: len(render.prompt_ids(prompt, row)) + new for row in asked})


def _cleaning(task: Task, ends: Sequence[str]) -> Fitting:
    """Which ends are taken off, and the rows of which then nothing is left. Raises BadInput where those may not go."""
    found = tuple(end for end in ends if any(end in row.answer for row in _all(task)))
    demos = task.config.prompt.demos
    shown = tuple(end for end in ends if any(end in demo.answer for demo in demos))
    for number, demo in enumerate(demos, 1):
        if _ends_only(demo, shown):
            raise BadInput(
                f"Demonstration {number} of prompt.demos answers with nothing but {_named(shown)}, which ends a turn "
                "of this model by itself; write out its answer, or take it away."
            )
    emptied = tuple(row.name for row in _all(task) if _ends_only(row, found))
    if emptied:
        many = any(2 * sum(_ends_only(row, found) for row in rows) > len(rows) for rows in map(task.rows, SPLITS))
        if many or not task.config.data.skip_invalid:
            way_out = (
                "are more than half of a split: too many to leave out."
                if many and task.config.data.skip_invalid
                else "cannot be used: mend them, or set data.skip_invalid: true to leave them out."
            )
            raise BadInput(f"{_emptied(emptied, found)} {way_out}")
    return Fitting(ends=found, demo_ends=shown, emptied=emptied)


def _windowed(task: Task, cleaned: Fitting, window: int, lengths: Mapping[str, int]) -> Fitting:
    """The fitting of a task of clean rows. Raises BadInput.

    Args:
        lengths: tokens of each validation and test row, with the new ones, by the row's name.
    """
    new, splits = task.config.generation.max_new_tokens, (task.validation, task.test)
    long = {name: tokens for name, tokens in lengths.items() if tokens > window}
    left_out = task.config.data.too_long == "leave_out"
    fitting = cleaned.model_copy(update={"window": window, "too_long": tuple(long), "left_out": left_out})
    if not long:
        return fitting
    longest = first_of([f"{name} ({long[name]} tokens)" for name in sorted(long, key=lambda name: -long[name])])
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
    """The task without the rows that are left out, its answers and demonstrations without ends of turns."""
    gone = {*fitting.emptied, *(fitting.too_long if fitting.left_out else ())}

    def rows(split: Split) -> tuple[Example, ...]:
        return tuple(_without_ends(row, fitting.ends) for row in task.rows(split) if row.name not in gone)

    if fitting.demo_ends:
        demos = tuple(_without_ends(demo, fitting.demo_ends) for demo in task.config.prompt.demos)
        seed = task.config.prompt.model_copy(update={"demos": demos})
        task = replace(task, config=task.config.model_copy(update={"prompt": seed}))
    if not gone and not fitting.ends:
        return task
    return replace(task, train=rows("train"), validation=rows("validation"), test=rows("test"))


def remarks(task: Task, fitting: Fitting) -> list[str]:
    """Sentences about what the fitting does to the task's rows."""
    sentences = []
    if fitting.too_long:
        fate = "are left out" if fitting.left_out else "count as wrong"
        sentences.append(f"{_counted(task, fitting)} are too long for the model's window and {fate} (data.too_long).")
    if fitting.ends:
        count = sum(any(end in row.answer for end in fitting.ends) for row in _all(task))
        sentences.append(
            f"{count} answers hold {_named(fitting.ends)}, which ends a turn of this model by itself: {OFF}."
        )
    if fitting.demo_ends:
        sentences.append(
            f"The demonstrations of the seed prompt hold {_named(fitting.demo_ends)}, as answers may not: {OFF}."
        )
    if fitting.emptied:
        sentences.append(f"{_emptied(fitting.emptied, fitting.ends)} are left out (data.skip_invalid).")
    return sentences


def _all(task: Task) -> tuple[Example, ...]:
    return (*task.train, *task.validation, *task.test)


def _counted(task: Task, fitting: Fitting) -> str:
    measured = {"validation": task.validation, "test": task.test}
    counts = {split: sum(row.name in fitting.too_long for row in rows) for split, rows in measured.items()}
    return " and ".join(f"{count} of {len(measured[split])} {split} rows" for split, count in counts.items() if count)


def first_of(names: Sequence[str]) -> str:
    """The first rows of a list, as a sentence names them."""
    return f"{', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''}"


def _emptied(names: Sequence[str], ends: Sequence[str]) -> str:
    """The subject of a sentence about them."""
    answers = f"whose answers are nothing but {_named(ends)}, which ends a turn of this model by itself,"
    return f"{len(names)} rows ({first_of(names)}), {answers}"


def _named(ends: Sequence[str]) -> str:
    return " and ".join(ends)


def _ends_only(row: Shown, ends: Sequence[str]) -> bool:
    """Whether it holds nothing but ends of turns (and thoughts)."""
    return any(end in row.answer for end in ends) and not spoken(_without_ends(row, ends).answer)


def _without_ends(row: Shown, ends: Sequence[str]) -> Shown:
    answer = row.answer
    for end in ends:
        answer = answer.replace(end, "")
    return row if answer == row.answer else row.model_copy(update={"answer": answer.strip()})
