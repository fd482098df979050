"""A run's task: read again from its source, and measured by the model's tokenizer before any weights are loaded."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.scorers import Rated
from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.protocols import Chat, Progress, Rater, Retriever, Scorers
from agent.records.evaluation import Fitting
from agent.records.examples import Example
from graphs.services.garbage_collection import without_garbage_collection
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    from eval.tasks.fitting import Renders
    from eval.tasks.kept import KeptTask
    from eval.tasks.task import Task


def read_task(folder: RunFolder, judge: Callable[[], Chat], progress: Progress) -> "tuple[Task, tuple[KeptTask, ...]]":
    """The task of a run, as it fits the model, and the others that its weights must not lose.

    Args:
        judge: the LLM as judge; asked for when answers are first scored by it.

    Raises:
        BadInput: one of them cannot be read any more, or its digest changed since the run began.
    """
    from eval.tasks.fitting import fitted
    from eval.tasks.kept import load_kept
    from eval.tasks.new_settings import new_settings
    from eval.tasks.task import build_task, load_config
    from graphs.services.raters import make_rater

    about, source = folder.about, Path(folder.about.source)
    with folder.as_begun():
        config = load_config(folder.task_file).limited(folder.limits())

        def rater(settings: Rated) -> Rater:
            return make_rater(settings, judge, config.device, progress)

        task = build_task(config, source, rater)
        task = replace(task, warnings=(*task.warnings, *new_settings(folder.task_file, config)))
        kept = tuple(load_kept(name, config, source, rater) for name in config.keep)
        changed = [f"task {config.name} in {task.folder}"] if task.digest != about.digest else []
        changed += [f"the kept task {other.name}" for other in kept if other.digest != about.keep.get(other.name)]
        if changed:
            raise BadInput(
                f"The rows, scorers or judge of {' and '.join(changed)} have changed since run {folder.name} began, so "
                "its scores no longer compare. Start a new run."
            )
    fitting = folder.fitting()
    return (fitted(task, fitting) if fitting else task), kept


def fit(
    task: "Task",
    kept: "Sequence[KeptTask]",
    folder: RunFolder,
    retriever: Callable[[Sequence[Example], Scorers], Retriever],
    progress: Progress,
    note: Callable[[str], None],
    save_kept: "Callable[[KeptTask, Fitting], object]",
) -> "Task":
    """The task as it fits the model; how it does is kept in the run folder.

    Args:
        kept: other tasks, which are measured too.
        retriever: looks few-shot examples up among these train rows, with their task's scorers.
        note: shows the user a sentence about what is odd.
        save_kept: keeps how another task fits.

    Raises:
        BadInput: rows are too long and the task refuses that, or the tokenizer cannot be used.
    """
    with without_garbage_collection():
        from eval.tasks.fitting import fitted, measure, remarks

        render, window, odd = _renderer(task.config, progress)

    def measured(own: "Task") -> Fitting:
        return measure(own, render, window, lambda train: retriever(train, own.scorers))

    fitting = measured(task)
    for remark in (*odd, *remarks(task, fitting)):
        note(f"Warning: {remark}")
    for other in kept:
        save_kept(other, measured(other.measurable))
    folder.save_fitting(fitting)
    return fitted(task, fitting)


def _renderer(config: TaskConfig, progress: Progress) -> "tuple[Renders, int, list[str]]":
    """What makes token ids of the rows, the model's window, and sentences on what is odd about its chat template."""
    if config.generation.engine == "openai":
        from tools.engines.openai_model import Unmeasured

        fate = "ends the run" if config.data.too_long == "refuse" else "counts as wrong"
        remark = (
            "Rows are not measured before the run, since `generation.engine: openai` has no tokenizer: one that the "
            f"server calls too long under the seed prompt {fate} (data.too_long)."
        )
        return Unmeasured(), sys.maxsize, [remark]
    from tools.model.loading import load_renderer

    render, window = load_renderer(config.model, chat_template_kwargs=config.chat_template_kwargs, progress=progress)
    return render, window, render.remarks()
