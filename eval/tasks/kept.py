"""Other tasks that new weights must not lose (`keep:` in a task.yaml): validation rows, scorers and seed prompt."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.config.scorers import Rated
from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.protocols import Rater
from agent.records.base import digest
from eval.scoring import no_rater
from eval.tasks.task import Task, load_task


@dataclass(frozen=True)
class KeptTask:
    """`name` is its path as the task that keeps it has it; `task` is without its test rows."""

    name: str
    task: Task
    digest: str

    @property
    def measurable(self) -> Task:
        """The task as its rows are measured against the window: all have to fit."""
        data = self.task.config.data.model_copy(update={"too_long": "refuse"})
        return replace(self.task, config=self.task.config.model_copy(update={"data": data}))


def load_kept(name: str, keeper: TaskConfig, folder: Path, rater: Callable[[Rated], Rater] = no_rater) -> KeptTask:
    """The task that `keep` names.

    Args:
        keeper: the task that keeps it, its paths located.
        folder: where the keeper's paths start.

    Raises:
        BadInput: it cannot be read, is of another model, keeps tasks itself, or asks a judge.
    """
    task = load_task((folder / Path(name).expanduser()).resolve(), rater=rater)
    config = task.config
    if config.keep:
        raise BadInput(
            f"{name} keeps tasks itself ({', '.join(config.keep)}); name those here, or take its `keep` away"
        )
    if (config.model, config.chat_template_kwargs) != (keeper.model, keeper.chat_template_kwargs):
        raise BadInput(
            f"{name} is of model {_model(config)}, and this task of {_model(keeper)}; only a task of the same model "
            "can be kept"
        )
    if "judge" in config.roles:
        raise BadInput(f"{name} is scored by an LLM as judge; only a task whose scorers ask no LLM can be kept")
    shaping = [task.digest, config.prompt.model_dump(mode="json"), config.generation.max_new_tokens]
    # Its answers are those of the keeper's engine: another engine's are measured anew.
    generation = keeper.generation.model_copy(update={"max_new_tokens": config.generation.max_new_tokens})
    config = config.model_copy(update={"generation": generation})
    return KeptTask(name, replace(task, config=config, test=()), digest(shaping))


def _model(config: TaskConfig) -> str:
    switches = f" with {config.chat_template_kwargs}" if config.chat_template_kwargs else ""
    return f"{config.model}{switches}"
