"""A task as the judge holds it: settings, rows of three splits, scorers, and one digest over what they measure."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import ValidationError

from agent.config.policies import is_policy
from agent.config.scorers import Rated, RewardModel
from agent.config.start import Start
from agent.config.task import TaskConfig
from agent.counting import plural
from agent.errors import BadInput
from agent.protocols import Rater
from agent.records.base import digest, folded
from agent.records.examples import Demo, Example, Split
from eval.scoring import BadScorer, TaskScorers, no_rater
from eval.tasks.config_errors import KeyPath, cut, sentences
from eval.tasks.prompt_file import read_prompt, read_text_or_prompt
from eval.tasks.splits import SPLITS, read_splits, with_shared_system
from eval.tasks.yaml_file import YamlFile, read_yaml


@dataclass(frozen=True)
class Task:
    """`digest` changes when a row, a split, a scorer or the judge does. `warnings` and `brought` are sentences."""

    config: TaskConfig
    folder: Path
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    scorers: TaskScorers
    digest: str
    warnings: tuple[str, ...] = ()
    brought: tuple[str, ...] = ()

    def rows(self, split: Split) -> tuple[Example, ...]:
        """The examples of one split, in order."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    @cached_property
    def shown(self) -> float:
        """Share of train answers that have the wanted form as given, as far as rules can tell."""
        return sum(not self.scorers.faults(row.answer) for row in self.train) / len(self.train)

    @cached_property
    def remade(self) -> float:
        """Share of train answers that pass once they are put into the wanted form; 0 where remaking is left out."""
        if "remaking" in self.config.without:
            return 0.0
        return sum(self.scorers.full_marks(self.scorers.show(row.answer), row) for row in self.train) / len(self.train)

    @cached_property
    def luck(self) -> float:
        """Share of rows that are right by luck: what one answer to all of them earns (`eval.commonest`)."""
        from eval.commonest import luck

        return luck(self)


def load_task(path: Path, overrides: Sequence[str] = (), rater: Callable[[Rated], Rater] = no_rater) -> Task:
    """The task in a task.yaml, or in a folder that holds one, with its rows read. Raises BadInput."""
    folder = path if path.is_dir() else path.parent
    return build_task(_located(load_config(path, overrides), folder), folder, rater)


def _located(config: TaskConfig, folder: Path) -> TaskConfig:
    """The settings with paths of models, like those of rows, starting at the task."""

    def place(model: str) -> str:
        return str((folder / Path(model).expanduser()).resolve()) if model.startswith((".", "~")) else model

    content = tuple(
        scorer.model_copy(update={"model": place(scorer.model)}) if isinstance(scorer, RewardModel) else scorer
        for scorer in config.content
    )
    start = config.start
    if start and start.adapter:
        start = start.model_copy(update={"adapter": str((folder / Path(start.adapter).expanduser()).resolve())})
    return config.model_copy(update={"model": place(config.model), "content": content, "start": start})


def build_task(config: TaskConfig, folder: Path, rater: Callable[[Rated], Rater] = no_rater) -> Task:
    """The task that these settings describe; `folder` is where its paths start.

    Args:
        rater: makes the judge or reward model of these settings; not called before answers are scored.

    Raises:
        BadInput: a scorer that cannot work, or rows that cannot be read or used.
    """
    scorers = TaskScorers(config.content, config.style, rater, _judge(config))
    rows, warnings, brought = read_splits(config.data, folder)
    system, rows, system_warnings = with_shared_system(config.prompt.system, rows)
    if system != config.prompt.system:
        config = config.model_copy(update={"prompt": config.prompt.model_copy(update={"system": system})})
    unplanned = []
    if config.planner != "none" and not config.plans:
        own = "a fixed order" if is_policy(config.policy) else "a policy of your own"
        kind = "the paper's switch" if config.policy == "paper" else own
        unplanned = [f"`policy: {config.policy}` is {kind}, so `planner: {config.planner}` is not asked"]
    content = {split: [example.model_dump(mode="json") for example in rows[split]] for split in SPLITS}
    return Task(
        config=config,
        folder=folder,
        train=rows["train"],
        validation=rows["validation"],
        test=rows["test"],
        scorers=scorers,
        digest=digest({"rows": content, "scorers": scorers.digest}),
        warnings=(
            *warnings,
            *system_warnings,
            *unplanned,
            *_unreachable(rows["train"] + rows["validation"], scorers),
            *_contradicting(config.prompt.demos, rows["train"], scorers),
        ),
        brought=brought,
    )


def _judge(config: TaskConfig) -> dict[str, object] | None:
    """Which LLM the judge is, as far as it shapes scores; None where the task has none.

    Without its address: the same model on another port grades as before.
    """
    if config.llm is None or "judge" not in config.roles:
        return None
    return config.llm.of("judge").model_dump(include={"model", "temperature"})


def _unreachable(examples: Sequence[Example], scorers: TaskScorers) -> list[str]:
    """A warning if reference answers, put in the wanted form, would not get full marks of the rules themselves.

    Raises BadInput at the first one on which a regular expression finds no end.
    """
    failing = []
    for example in examples:
        if not scorers.full_marks(scorers.show(example.answer), example):
            failing.append(example)
        if scorers.given_up:
            raise BadInput(f"{example.name}, whose answer is {cut(example.answer)}: {scorers.given_up}")
    if not failing:
        return []
    first, shown = failing[0], scorers.show(failing[0].answer)
    why = " ".join(scorers.faults(shown)) or f"its content scores {scorers.ruled(shown, first):.2f}"
    return [
        f"{len(failing)} of {len(examples)} train and validation answers do not get full marks even in the wanted form "
        f"({first.name} as {shown!r}: {why}); give a scorer another `show`, or `exact` an `extract`"
    ]


def _contradicting(demos: Sequence[Demo], train: Sequence[Example], scorers: TaskScorers) -> list[str]:
    """A warning if demonstrations answer questions of train rows otherwise than all rows with that question do."""

    def contradicts(demo: Demo, row: Example) -> bool:
        return folded(demo.answer) != folded(row.answer) and scorers.ruled(demo.answer, row) == 0

    rows: dict[str, list[Example]] = {}
    for row in train:
        if row.stands_alone and scorers.ruled(row.answer, row) == 1:  # else the scorer itself is to be looked at
            rows.setdefault(folded(row.question), []).append(row)
    known = [(demo, same) for demo in demos if (same := rows.get(folded(demo.question)))]
    wrong = [(demo, same[0]) for demo, same in known if all(contradicts(demo, row) for row in same)]
    if not wrong:
        return []
    demo, row = wrong[0]
    return [
        f"{plural(len(wrong), 'demonstration')} of the first prompt with another answer than the train rows of the "
        f"same question: {cut(demo.question)} with {cut(demo.answer)}, {row.name} with {cut(row.answer)}. Models "
        "follow demonstrations: mend the ones or the others"
    ]


def load_config(path: Path, overrides: Sequence[str] = ()) -> TaskConfig:
    """The settings in a task.yaml, or in a folder that holds one, changed by overrides such as `budget.rounds=3`.

    Raises:
        BadInput: one sentence per fault, with the file and the line, or the override.
    """
    file = read_yaml(path / "task.yaml" if path.is_dir() else path)
    changes = {tuple(override.partition("=")[0].split(".")): override for override in overrides}
    values: object = file.values
    for keys, override in changes.items():
        values = _changed(values, keys, override)
    try:
        config = TaskConfig.model_validate(values)
        TaskScorers(config.content, config.style)
    except ValidationError as error:
        found = sorted(sentences(error).items(), key=lambda fault: file.find(fault[0])[1])
        raise BadInput("\n".join(f"{_place(file, keys, changes)}: {sentence}" for keys, sentence in found)) from None
    except BadScorer as error:
        raise BadInput(f"{_place(file, error.keys, changes)}: {error}") from None
    try:
        return _with_words_read(config, path if path.is_dir() else path.parent)
    except BadInput as error:
        keys = ("start", "prompt") if config.start and config.start.prompt else ("prompt", "file")
        raise BadInput(f"{_place(file, keys, changes)}: {error}") from None


def _with_words_read(config: TaskConfig, folder: Path) -> TaskConfig:
    """The settings with the words of the prompt in place of the file that holds them. Raises BadInput."""
    columns, start = (config.data.question, config.data.answer), config.start
    if start and start.prompt:
        prompt = read_text_or_prompt(start.prompt, folder, *columns)
        if config.prompt.model_fields_set:
            raise BadInput(
                "`start` brings a prompt, and the task has a `prompt` too: leave that out (`--set prompt=null`, in "
                'Python {"prompt": None}), or take the adapter alone with `start: {adapter: …}`'
            )
        adapter = start.adapter
        if adapter == start.prompt and not (folder / Path(adapter).expanduser() / "adapter_config.json").exists():
            adapter = None  # a bundle whose best pair is the bare base with a prompt
        left = Start(adapter=adapter) if adapter else None
        return config.model_copy(update={"prompt": prompt, "start": left})
    if config.prompt.file is None:
        return config
    prompt = read_prompt(folder / Path(config.prompt.file).expanduser(), *columns)
    return config.model_copy(update={"prompt": prompt})


def as_overrides(changes: Mapping[str, object]) -> list[str]:
    """Nested settings as overrides. A section is changed key by key; a list is replaced, or changed by its numbers."""
    return [f"{key}={value}" for key, value in _leaves(changes, "")]


def _leaves(changes: Mapping[str, object], above: str) -> Iterator[tuple[str, str]]:
    for name, value in changes.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping) and value and not any(set(".=") & set(str(inner)) for inner in value):
            yield from _leaves(value, f"{key}.")
        else:
            plain = str(value) if isinstance(value, Path) else value
            yield (
                key,
                yaml.safe_dump([plain], default_flow_style=True, allow_unicode=True, width=math.inf).strip()[1:-1],
            )


def place(path: Path, keys: KeyPath, overrides: Sequence[str] = ()) -> str:
    """Where a key of a readable task was given, for an error: the file and line, or the override."""
    file = read_yaml(path / "task.yaml" if path.is_dir() else path)
    return _place(file, keys, {tuple(override.partition("=")[0].split(".")): override for override in overrides})


def _changed(values: object, keys: Sequence[str], override: str) -> object:
    """The values with the override's value, read as YAML, under these keys. Raises BadInput."""
    _, equals, text = override.partition("=")
    if not equals or not all(keys):
        raise BadInput(f"override '{override}': write it as key=value, such as budget.rounds=3")
    try:
        return _with(values, keys, yaml.safe_load(text))
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"override '{override}': {' '.join(str(error).split())}") from None


def _with(values: object, keys: Sequence[str], new: object) -> object:
    """A copy of nested sections and lists with the value under these keys replaced. Raises ValueError."""
    if not keys:
        return new
    key, rest = keys[0], keys[1:]
    if isinstance(values, list):
        if not key.isdecimal() or int(key) >= len(values):
            raise ValueError(f"'{key}' is not one of the {len(values)} entries, which are counted from 0")
        return [_with(entry, rest, new) if place == int(key) else entry for place, entry in enumerate(values)]
    section = values if isinstance(values, dict) else {}
    return {**section, key: _with(section.get(key), rest, new)}


def _place(file: YamlFile, keys: KeyPath, changes: dict[tuple[str, ...], str]) -> str:
    """Where a faulty key was given: by an override, or on a line of the file."""
    names = tuple(map(str, keys))
    depth, line = file.find(keys)
    for changed, override in changes.items():
        if names and names[: len(changed)] == changed[: len(names)]:
            shown = override.partition("=")[0] if "://" in override else override  # which may hold a password
            return f"override '{shown}'"
    return f"{file.path}, line {line}" if depth else str(file.path)
