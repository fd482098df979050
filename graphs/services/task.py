"""A run's task: read again from its source, and measured by the model's tokenizer before any weights are loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BadInput
from agent.protocols import Chat, Progress, Retriever
from agent.records.examples import Example
from graphs.services.garbage_collection import without_garbage_collection
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    from eval.tasks.task import Task


def read_task(folder: RunFolder, judge: Callable[[], Chat], progress: Progress) -> "Task":
    """The task of a run, as it fits the model.

    Args:
        judge: the LLM as judge; asked for when answers are first scored by it.

    Raises:
        BadInput: it cannot be read any more, or its digest changed since the run began.
    """
    from eval.tasks.fitting import fitted
    from eval.tasks.task import build_task, load_config
    from graphs.services.raters import make_rater

    with folder.as_begun():
        config = load_config(folder.task_file)
        task = build_task(
            config,
            Path(folder.about.source),
            lambda settings: make_rater(settings, judge, config.device, progress),
        )
        if task.digest != folder.about.digest:
            raise BadInput(
                f"The rows, scorers or judge of task {task.config.name} in {task.folder} have changed since run "
                f"{folder.name} began, so its scores no longer compare. Start a new run."
            )
    fitting = folder.fitting()
    return fitted(task, fitting) if fitting else task


def fit(
    task: "Task",
    folder: RunFolder,
    retriever: Callable[[Sequence[Example]], Retriever],
    progress: Progress,
    note: Callable[[str], None],
) -> "Task":
    """The task as it fits the model; how it does is kept in the run folder.

    Args:
        retriever: looks few-shot examples up among these train rows.
        note: shows the user a sentence about what is odd.

    Raises:
        BadInput: rows are too long and the task refuses that, or the tokenizer cannot be used.
    """
    with without_garbage_collection():
        from eval.tasks.fitting import fitted, measure, remarks
        from tools.model.loading import load_renderer

        config = task.config
        render, window = load_renderer(
            config.model, chat_template_kwargs=config.chat_template_kwargs, progress=progress
        )
    fitting = measure(task, render, window, retriever)
    for remark in (*render.remarks(), *remarks(task, fitting)):
        note(f"Warning: {remark}")
    folder.save_fitting(fitting)
    return fitted(task, fitting)
