"""What the nodes of one run work with, made when first asked for: a resume that only reads loads no model."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from agent import extensions
from agent.errors import BadInput
from agent.policy.llm_planner import LlmPlanner
from agent.policy.make import make_policy
from agent.protocols import Editor, Listener, Policy, Trainer
from agent.records.events import Event, Note, WorkProgressed
from agent.records.examples import Candidate, Example
from graphs.context import Context, run_folder
from graphs.services.garbage_collection import without_garbage_collection
from graphs.services.meter import ChargedStore, Meter
from graphs.services.shared_model import shared_backbone, shared_embedder
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    from agent.records.drift import GeneralBaseline
    from eval.leaks import Leaks
    from eval.runner import Runner
    from eval.tasks.task import Task
    from graphs.services.llm import ExternalLlm
    from graphs.services.run_memory import RunMemory
    from memory.embedder import MiniLm
    from memory.run.pool import Pool
    from tools.diagnosis.classify import Classifier
    from tools.editing.textgrad_editor import TextGradEditor
    from tools.model.answer_cache import CachedLanguageModel
    from tools.model.backbone import Backbone


class RunServices:
    """One run, and the services that belong to it. The loaded model is the process's: see `shared_model`.

    Args:
        context: names the run; where it names a task instead, the run folder is made when it is first asked for.
        new_name: how such a run is called; None: by its task and the time.
    """

    def __init__(self, context: Context, new_name: str | None = None) -> None:
        self.context = context
        self.supervised = context.supervised
        self.listener: Listener = context.listener
        self.report = context.report
        self.stream: Callable[[dict[str, object]], object] = lambda event: None  # LangGraph's, of the node under way
        self._new_name = new_name
        self._lock: ExitStack | None = None

    # --- the run and its task ---

    @cached_property
    def folder(self) -> RunFolder:
        return run_folder(self.context, self._new_name)

    @cached_property
    def spec(self) -> "Task":
        """The task, read again from its source, as it fits the model.

        Raises BadInput if its digest changed since the run began.
        """
        from eval.tasks.fitting import fitted
        from eval.tasks.task import build_task, load_config
        from graphs.services.raters import make_rater

        folder = self.folder
        with folder.as_begun():
            config = load_config(folder.task_file)
            task = build_task(
                config,
                Path(folder.about.source),
                lambda settings: make_rater(settings, lambda: self.llm.chat("judge"), config.device, self.progress),
            )
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
        with without_garbage_collection():
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

    def lock(self) -> None:
        """Keep the run for this process, until `unlock`. Raises Busy, naming who has it."""
        if self._lock is None:
            lock = ExitStack()
            lock.enter_context(self.folder.locked())
            self._lock = lock

    def unlock(self) -> None:
        """Let others have the run."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The run for this process alone inside. Raises Busy, naming who has it."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

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
    def backbone(self) -> "Backbone":
        """This run's view of the loaded model: with its own adapters, progress and charges.

        Raises:
            BadInput: the model cannot be loaded, or does not take the run's LoRA settings.
        """
        return shared_backbone(
            self.spec.config, self.folder.adapter_folder, self.progress, self.meter.add, remark=self.note
        )

    @cached_property
    def pooled(self) -> "Pool | None":
        from memory.run.pool import Pool

        return Pool(Path(self.context.pool)) if self.context.pool else None

    def drift(self, pair: Candidate) -> float | None:
        """What its weights have lost on general text against the bare base, nats a token.

        None: they are the base's, or the general text does not fit into the model's window.
        """
        from tools.diagnosis.drift import drift

        if pair.adapter is None or self._general_baseline is None:
            return None
        return drift(self.model, pair.adapter, self._general_baseline).mean

    @cached_property
    def _general_baseline(self) -> "GeneralBaseline | None":
        """The bare base on general text: measured once in a run."""
        from tools.diagnosis.drift import general_baseline

        if known := self.folder.general_baseline():
            return known
        measured = general_baseline(self.model)
        if measured:
            self.folder.save_general_baseline(measured)
        return measured

    @cached_property
    def evaluate(self) -> "Runner":
        from eval.runner import Runner

        learned_from = self.spec.config.edit.editor != "rules"  # a critique is of the whole answer
        store = ChargedStore(self.folder, self.meter.charge)
        return Runner(self.spec, self.model, self.folder.prompt, store, whole=learned_from)

    @cached_property
    def classifier(self) -> "Classifier":
        from memory.embedder import is_installed
        from tools.diagnosis.classify import Classifier

        task = self.spec
        new = task.config.generation.max_new_tokens
        embed = self._embed if is_installed() or "_embed" in vars(self) else None  # loads its model at the first call
        return Classifier(self.model, task.scorers, task.train, embed, max_new_tokens=new)

    @cached_property
    def policy(self) -> Policy:
        config = self.spec.config
        if config.plans:
            return LlmPlanner(self.llm.chat("planner"), config, self.memory.experience)
        return make_policy(config, self.memory.experience if config.policy == "learned" else ())

    @cached_property
    def trainer(self) -> Trainer:
        from tools.training.lora import LoraTrainer

        return LoraTrainer(self.backbone, self.spec.config.lora, self.progress)

    @cached_property
    def editor(self) -> Editor:
        from tools.editing.rule_editor import CombinedEditor, RuleEditor

        config, textgrad = self.spec.config, self.textgrad
        if make := extensions.editors.get(config.edit.editor):
            editor = make(self.spec.scorers, config.edit)
            if not callable(getattr(editor, "propose", None)):
                raise BadInput(
                    f"what is registered as editor {config.edit.editor!r} makes {editor!r}, which has no `propose`"
                )
            return editor
        first = self.folder.baseline()
        recalled = [self.folder.prompt(tried.prompt) for tried in first.recalled[1:]] if first else []
        rules = RuleEditor(self.spec.scorers, config.edit, recalled)
        return CombinedEditor(textgrad, rules, config.edit.proposals) if textgrad else rules

    @cached_property
    def textgrad(self) -> "TextGradEditor | None":
        """The LLM as editor; None where only the rules edit."""
        task = self.spec
        if task.config.edit.editor != "textgrad":
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
            deadline=lambda: self.meter.deadline, notify=self.note,
        )  # fmt: skip

    # --- memory across runs ---

    @cached_property
    def memory(self) -> "RunMemory":
        """What this run reads of others, and leaves for later ones. It is open only while it is used."""
        from graphs.services.run_memory import RunMemory

        return RunMemory(self.folder, self.spec, lambda texts: self._embed(texts), self.note)

    @cached_property
    def _embed(self) -> "MiniLm":
        return shared_embedder()

    # --- events and spend ---

    def emit(self, event: Event) -> None:
        """Note an event in the run folder, stream it, and show it to the listener."""
        self.folder.event(event)
        self.stream(event.model_dump(mode="json"))
        self.listener.event(event)

    def note(self, text: str) -> None:
        """Tell the user a sentence."""
        self.emit(Note(text=text))

    def show_report(self) -> None:
        """Rewrite the report, where this run has somebody to write it."""
        if self.report:
            self.report(self.folder, (*self.spec.validation, *self.spec.test))

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Shows how far long work is, and notes what it has used up. Satisfies `agent.protocols.Progress`."""
        self.meter.charge()
        self.stream(WorkProgressed(what=what, done=done, total=total, note=note).model_dump(mode="json"))
        self.listener(what, done, total, note)

    @cached_property
    def meter(self) -> Meter:
        """Counts what the step under way uses up."""
        return Meter(self.folder.charges, lambda: self.llm.budget.spend)
