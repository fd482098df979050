"""What one call of the graph is given: the run, its settings, and who watches. Loads nothing heavy."""

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from agent import extensions
from agent.errors import BadInput
from agent.records.events import Event
from agent.records.examples import Example
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    from eval.tasks.task import Task

Report = Callable[[RunFolder, Sequence[Example]], object]
"""Writes the report of a run. The examples are the validation and test rows."""

PathText = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]


class Silent:
    """The listener that shows nothing."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...

    def event(self, event: Event) -> None: ...


class Context(BaseModel):
    """LangGraph's runtime context: plain values, so that a server takes it as JSON. Closed to unknown fields.

    Each field may come in the graph's input as well; what stands here wins.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: PathText = Field("", description="the run folder; empty: one is made for `task`, named after the thread")
    task: PathText = Field("", description="task.yaml or its folder; only read for a run that does not exist yet")
    overrides: tuple[str, ...] = Field((), description="settings of a new run's task, as a.b=c")
    budget: dict[str, float | None] = Field(
        default_factory=dict, description="limits of a new run, such as {'rounds': 4}; null lifts one"
    )
    runs: PathText = Field("runs", description="where new runs and the prompt memory live")
    pool: PathText = Field("", description="a folder of answers and adapters that runs of one task share; empty: none")
    supervised: bool = Field(False, description="ask before every action")
    # A Listener and a Report. Any, since a protocol has no JSON schema; only callers in Python give them.
    listener: SkipJsonSchema[Any] = Field(default_factory=Silent, repr=False, exclude=True)
    report: SkipJsonSchema[Any] = Field(None, repr=False, exclude=True)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Context":
        """A context from plain values. Raises BadInput, naming the field, what is wrong with it, and the way out."""
        try:
            return cls(**values)
        except ValidationError as error:
            fields = [name for name, info in cls.model_fields.items() if not info.exclude]
            faults = []
            for fault in error.errors():
                field = str(fault["loc"][0])
                if fault["type"] == "extra_forbidden":
                    near = get_close_matches(field, fields, n=1)
                    hint = f"Did you mean {near[0]}? " if near else ""
                    faults.append(f"context: there is no field {field!r}. {hint}The fields are {', '.join(fields)}")
                else:
                    faults.append(f"context: {field} is {fault['input']!r}: {fault['msg']}")
            raise BadInput("; ".join(faults)) from None

    @property
    def settings(self) -> list[str]:
        """Overrides and budget as the task reader takes them."""
        limits = {
            name: int(limit) if limit is not None and limit.is_integer() else limit
            for name, limit in self.budget.items()
        }
        return [*self.overrides, *(f"budget.{name}={json.dumps(limit)}" for name, limit in limits.items())]


def new_run(task: Path, overrides: Sequence[str] = (), runs: Path = Path("runs"), name: str | None = None) -> RunFolder:
    """Read and check a task, and lay its run folder out. Loads no model.

    Raises:
        BadInput: the task, its rows or a model of it cannot be used.
    """
    import yaml

    read, kept = checked(task, overrides)
    text = yaml.safe_dump(read.config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
    used = extensions.used_by(read.config)
    return RunFolder.create(runs, read.config.name, text, read.folder, read.digest, name, used, kept)


def checked(task: Path, overrides: Sequence[str] = ()) -> "tuple[Task, dict[str, str]]":
    """A task that a run can be begun with, and the digests of those that it is to keep. Loads no model.

    Raises:
        BadInput: the task, its rows or a model of it cannot be used.
    """
    from agent.config.lora_options import faults
    from eval.tasks.kept import load_kept
    from eval.tasks.task import load_task, place
    from graphs.services.run_memory import check_experience
    from memory.embedder import INSTALL, is_installed
    from tools.editing.pareto_search import library
    from tools.model.availability import check_model

    read = load_task(task, overrides)
    for option, fault in faults(read.config.lora).items():
        raise BadInput(f"{place(task, ('lora', 'options', option), overrides)}: {fault}")
    for keys, model in read.config.models.items():
        try:
            check_model(model)
        except BadInput as error:
            raise BadInput(f"{place(task, keys, overrides)}: {error}") from error
    if read.config.generation.engine != "own":
        from tools.engines.server import key_of
        from tools.engines.starting import check_startable

        try:
            check_startable(read.config.generation)
            key_of(read.config.generation)
        except BadInput as error:
            raise BadInput(f"{place(task, ('generation', 'engine'), overrides)}: {error}") from error
    if read.config.prompt.retrieval and not is_installed():
        where = place(task, ("prompt", "retrieval"), overrides)
        raise BadInput(f"{where}: train rows are retrieved by an embedder, which is not installed. Run: {INSTALL}")
    if read.config.start and read.config.start.adapter:
        from tools.adapters.starting import check_start  # with torch, which takes seconds

        try:
            check_start(Path(read.config.start.adapter), read.config.model, read.config.lora, read.config.shard)
        except BadInput as error:
            raise BadInput(f"{place(task, ('start', 'adapter'), overrides)}: {error}") from error
    kept = {}
    for number, other in enumerate(read.config.keep):
        try:
            kept[other] = load_kept(other, read.config, read.folder).digest
        except BadInput as error:
            whose = "" if other in str(error) else f"{other}: "
            raise BadInput(f"{place(task, ('keep', number), overrides)}: keep: {whose}{error}") from error
    check_experience(read.config, read.folder)
    if read.config.edit.editor == "gepa":
        library()
    return read, kept


def run_folder(context: Context, new_name: str | None) -> RunFolder:
    """The run that a context names, or a new one of its task.

    Args:
        new_name: of a new run; one that has this name already is gone on with.

    Raises:
        BadInput: there is no such run, it is of another task than the context's, or the task cannot be used.
    """
    root = Path(context.runs)
    if context.run:
        named = root / context.run  # as the state of a thread names it
        run = RunFolder.open(named if (named / "run.json").exists() else Path(context.run))
    elif new_name and (root / new_name / "run.json").exists():
        run = RunFolder.open(root / new_name)
    else:
        return new_run(Path(context.task), context.settings, root, new_name)
    asked, source = Path(context.task).resolve(), Path(run.about.source)
    if context.task and source not in (asked, asked.parent):
        raise BadInput(
            f"The run {run.name} in {run.path.parent} is of another task ({source}) than {asked}. Give the other "
            "task a thread of its own, or name no task to go on with this run."
        )
    return run
