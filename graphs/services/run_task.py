"""A run's task, read again from its source, and the tasks that it is to keep: as they were when the run began."""

from collections.abc import Callable
from pathlib import Path

from agent.config.scorers import Rated
from agent.errors import BadInput
from agent.protocols import Rater
from eval.tasks.kept import KeptTask, load_kept
from eval.tasks.task import Task, build_task, load_config
from memory.run.folder import RunFolder


def read_task(folder: RunFolder, make_rater: Callable[[Rated, str], Rater]) -> tuple[Task, tuple[KeptTask, ...]]:
    """The task of a run, and the others that its weights must not lose.

    Args:
        make_rater: the judge or reward model of these settings, for a model on this device.

    Raises:
        BadInput: one of them cannot be read any more, or has changed since the run began.
    """
    about, source = folder.about, Path(folder.about.source)
    with folder.as_begun():
        config = load_config(folder.task_file)

        def rater(settings: Rated) -> Rater:
            return make_rater(settings, config.device)

        task = build_task(config, source, rater)
        kept = tuple(load_kept(name, config, source, rater) for name in config.keep)
        changed = [f"task {config.name} in {task.folder}"] if task.digest != about.digest else []
        changed += [f"the kept task {other.name}" for other in kept if other.digest != about.keep.get(other.name)]
        if changed:
            raise BadInput(
                f"The rows, scorers or judge of {' and '.join(changed)} have changed since run {folder.name} began, so "
                "its scores no longer compare. Start a new run."
            )
    return task, kept
