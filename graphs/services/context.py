"""The run's services, built when first asked for and then kept: a resume that only reads loads no model."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import BadInput
from agent.policy.llm_planner import LlmPlanner
from agent.policy.registry import make_policy
from agent.protocols import Editor, Embed, Policy, Rater
from agent.records.base import Record
from agent.records.examples import Candidate, Example, Prompt
from agent.signal.cost_model import Prices, prices
from graphs.services.charging import Charging, Meter
from graphs.services.garbage_collection import collector_at_rest
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    from agent.config.scorers import Rated
    from eval.leaks import Leaks
    from eval.runner import Runner
    from eval.tasks.task import Task
    from graphs.services.llm import ExternalLlm
    from graphs.services.memory import Memory
    from memory.embedder import MiniLm
    from memory.run.pool import Pool
    from tools.diagnosis.classify import Classifier
    from tools.editing.textgrad_editor import TextGradEditor
    from tools.model.answer_cache import CachedLanguageModel
    from tools.model.backbone import Backbone


class Silent:
    """The listener that shows nothing."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...

    def event(self, kind: str, data: dict[str, Any]) -> None: ...


def new_run(task: Path, overrides: Sequence[str] = (), runs: Path = Path("runs"), name: str | None = None) -> RunFolder:
    """Read and check a task, and lay its run folder out. Loads no model.

    Raises:
        BadInput: the task, its rows or a model of it cannot be used.
    """
    import yaml

    from agent.config.lora_options import faults
    from eval.tasks.task import load_task, place
    from graphs.services.memory import check_experience
    from tools.model.availability import check_model

    read = load_task(task, overrides)
    for option, fault in faults(read.config.lora).items():
        raise BadInput(f"{place(task, ('lora', 'options', option), overrides)}: {fault}")
    for keys, model in read.config.models.items():
        try:
            check_model(model)
        except BadInput as error:
            raise BadInput(f"{place(task, keys, overrides)}: {error}") from error
    check_experience(read.config, read.folder)
    text = yaml.safe_dump(read.config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
    return RunFolder.create(runs, read.config.name, text, read.folder, read.digest, name)


@dataclass
class Context:
    """What the nodes work with; LangGraph hands it to them as runtime context.

    Args:
        run: the run folder. Empty: one is made for `task`, named after the graph's thread.
        task: task.yaml or its folder; only for a run that does not exist yet.
        runs: where new runs and the prompt memory live.
        pool: a folder of answers and adapters that runs of the same task have in common; empty: none.
        supervised: ask before every move.
        listener: told of everything that happens.
        report: writes the report, after the baseline and after every round.
    """

    run: str = ""
    task: str = ""
    runs: str = "runs"
    pool: str = ""
    supervised: bool = False
    # A Listener and a Report, typed Any because LangGraph makes a JSON schema of this class.
    listener: Any = field(default_factory=Silent, repr=False)
    report: Any = field(default=None, repr=False)
    _lock: Any = field(default=None, init=False, repr=False)  # an ExitStack

    # --- the run and its task ---

    @cached_property
    def folder(self) -> RunFolder:
        if self.run:
            return RunFolder.open(Path(self.run))
        from langgraph.config import get_config

        name = f"thread-{get_config()['configurable']['thread_id']}"
        path = Path(self.runs) / name
        return RunFolder.open(path) if path.exists() else new_run(Path(self.task), runs=Path(self.runs), name=name)

    @cached_property
    def spec(self) -> "Task":
        """The task, read again from its source, as it fits the model.

        Raises BadInput if its digest changed since the run began.
        """
        from eval.tasks.fitting import fitted
        from eval.tasks.task import build_task, load_config

        folder = self.folder
        with folder.as_begun():
            task = build_task(load_config(folder.task_file), Path(folder.about.source), self._rater)
            if task.digest != folder.about.digest:
                raise BadInput(
                    f"The rows, scorers or judge of task {task.config.name} in {task.folder} have changed since run "
                    f"{folder.name} began, so its scores no longer compare. Start a new run."
                )
        fitting = self.folder.fitting()
        return fitted(task, fitting) if fitting else task

    def fit_rows(self) -> None:
        """Find out, once in a run, how the rows fit the model; the tokenizer is read for it, and no weights.

        Raises:
            BadInput: some are too long and the task refuses that, or the tokenizer cannot be used.
        """
        if self.folder.fitting():
            return
        with collector_at_rest():
            from eval.tasks.fitting import fitted, measure, remarks
            from tools.model.loading import load_renderer

            config = self.spec.config
            render, window = load_renderer(
                config.model, chat_template_kwargs=config.chat_template_kwargs, progress=self.listener
            )
        fitting = measure(self.spec, render, window)
        for remark in (*render.remarks(), *remarks(self.spec, fitting)):
            self.note(f"Warning: {remark}")
        self.folder.save_fitting(fitting)
        vars(self)["spec"] = fitted(self.spec, fitting)

    @cached_property
    def examples(self) -> dict[str, Example]:
        """Train rows by name: those that tools may learn from."""
        return {example.name: example for example in self.spec.train}

    def hold(self) -> None:
        """Keep the run for this process, until the outermost `alone` ends. Raises Busy, naming who has it."""
        if self._lock is None:
            lock = ExitStack()
            lock.enter_context(self.folder.locked())
            self._lock = lock

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What of the run is held inside is let go at the end; what was held before stays held."""
        before = self._lock
        try:
            yield
        finally:
            if before is None and self._lock is not None:
                self._lock.close()
                self._lock = None

    # --- the rooms' services ---

    @cached_property
    def model(self) -> "Backbone | CachedLanguageModel":
        """What answers and scores: the backbone, or what other runs have asked of it."""
        if self.pooled is None:
            return self.backbone
        from tools.model.answer_cache import CachedLanguageModel

        spec, answers = self.spec, self.pooled.answers
        return CachedLanguageModel(
            lambda: self.backbone, answers, spec.config.base, time.monotonic, spec.scorers.digest, self.meter.add
        )

    @cached_property
    def pooled(self) -> "Pool | None":
        from memory.run.pool import Pool

        return Pool(Path(self.pool)) if self.pool else None

    @cached_property
    def backbone(self) -> "Backbone":
        from agent.config.lora_options import check_options

        config = self.spec.config
        check_options(config.lora)  # of a run that was laid out before this was checked
        self.progress("loading the model", 0, 1, config.model)
        with collector_at_rest():
            from tools.model.backbone import Backbone
            from tools.model.generation_config import remark
            from tools.model.loading import load_model
            from tools.training.lora_config import try_settings

            base, tokenizer = load_model(
                config.model, device=config.device, dtype=config.dtype, qlora=config.lora.qlora,
                chat_template_kwargs=config.chat_template_kwargs, progress=self.progress,
            )  # fmt: skip
        self.progress("loading the model", 1, 1, config.model)
        if said := remark(base):
            self.note(said)
        backbone = Backbone(
            base,
            tokenizer,
            name=config.model,
            locate=self.folder.adapter_folder,
            chat_template_kwargs=config.chat_template_kwargs,
            batch_size=config.generation.batch_size,
            progress=self.progress,
            charge=self.meter.add,
        )
        try_settings(backbone, config.lora)
        return backbone

    def drift(self, pair: Candidate) -> float | None:
        """What its weights have lost on general text against the bare base, nats a token.

        None: they are the base's, or the general text does not fit into the model's window.
        """
        from tools.diagnosis.drift import general_loss

        if pair.adapter is None or self._general_loss is None:
            return None
        loss = general_loss(self.model, pair.adapter)
        return None if loss is None else loss - self._general_loss

    @cached_property
    def _general_loss(self) -> float | None:
        from tools.diagnosis.drift import general_loss

        return general_loss(self.model, None)

    @cached_property
    def evaluate(self) -> "Runner":
        from eval.runner import Runner

        learned_from = self.spec.config.edit.editor == "textgrad"  # an LLM's critique wants the whole answer
        store = Charging(self.folder, self.meter.charge)
        return Runner(self.spec, self.model, self.folder.prompt, store, whole=learned_from)

    @cached_property
    def classifier(self) -> "Classifier":
        from tools.diagnosis.classify import Classifier

        task = self.spec
        new = task.config.generation.max_new_tokens
        return Classifier(self.model, task.scorers, task.train, self._embedder, max_new_tokens=new)

    def _rater(self, settings: "Rated") -> Rater:
        from graphs.services.raters import make_rater

        return make_rater(settings, lambda: self.llm.chat("judge"), self.spec.config.device, self.progress)

    @cached_property
    def policy(self) -> Policy:
        config = self.spec.config
        if config.plans:
            return LlmPlanner(self.llm.chat("planner"), config, self.memory.experience)
        return make_policy(config, self.memory.experience if config.policy == "learned" else ())

    def prices(self, prompt: Prompt) -> Prices:
        """What a round of each lever is estimated to cost under this prompt."""
        return prices(self.spec.config, prompt, self.spec.train, self.spec.validation)

    @cached_property
    def editor(self) -> Editor:
        from tools.editing.rule_editor import EditorChain, RuleEditor

        config, textgrad = self.spec.config, self.textgrad
        first = self.folder.baseline()
        recalled = [self.folder.prompt(tried.prompt) for tried in first.recalled[1:]] if first else []
        rules = RuleEditor(self.spec.scorers, config.edit, recalled)
        return EditorChain(textgrad, rules, config.edit.proposals) if textgrad else rules

    @cached_property
    def textgrad(self) -> "TextGradEditor | None":
        """The LLM as editor; None where only the rules edit."""
        task = self.spec
        if task.config.edit.editor == "rules":
            return None
        from tools.editing.textgrad_editor import TextGradEditor

        chat = self.llm.chat("editor")
        return TextGradEditor(chat, task.scorers, task.config.edit, self.examples.__getitem__, self.progress)

    @cached_property
    def leaks(self) -> "Leaks":
        from eval.leaks import Leaks

        return Leaks(self.spec.train, self.spec.validation)

    @cached_property
    def llm(self) -> "ExternalLlm":
        from graphs.services.llm import ExternalLlm

        config = self.spec.config
        return ExternalLlm(
            config.llm, config.roles, self.folder, config.budget.usd,
            deadline=lambda: self.meter.deadline, tell=self.note,
        )  # fmt: skip

    # --- memory across runs ---

    @cached_property
    def memory(self) -> "Memory":
        """What this run remembers of others, and leaves to them; opened only while it is used."""
        from graphs.services.memory import Memory

        return Memory(self.folder, self.spec, lambda texts: self._embed(texts), self.note)

    @cached_property
    def _embed(self) -> "MiniLm":
        from memory.embedder import MiniLm

        return MiniLm()

    @property
    def _embedder(self) -> Embed | None:
        """Texts to vectors, loaded at the first call; None where the model of it is not installed."""
        from memory.embedder import is_installed

        return self._embed if is_installed() or "_embed" in vars(self) else None

    # --- what is told and what is counted ---

    def tell(self, kind: str, **data: Any) -> None:
        """Note an event in the run folder and show it to the listener."""
        plain = {
            key: value.model_dump(mode="json") if isinstance(value, Record) else value for key, value in data.items()
        }
        self.folder.event(kind, **plain)
        self.listener.event(kind, data)

    def note(self, text: str) -> None:
        """Tell the user a sentence."""
        self.tell("note", text=text)

    def show_report(self) -> None:
        """Rewrite the report, where this run has somebody to write it."""
        if self.report:
            self.report(self.folder, (*self.spec.validation, *self.spec.test))

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Shows how far long work is, and notes what it has used up. Satisfies `agent.protocols.Progress`."""
        self.meter.charge()
        self.listener(what, done, total, note)

    @cached_property
    def meter(self) -> Meter:
        """Counts what the step under way uses up."""
        return Meter(self.folder.charges, lambda: self.llm.account.spend)
