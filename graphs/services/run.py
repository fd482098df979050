"""What the nodes of one run work with, made when first asked for: a resume that only reads loads no model."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BadInput, OutOfBudget
from agent.protocols import Editor, LanguageModel, Listener, Policy, Retriever, Scorers, Trainer
from agent.records.evaluation import Evaluation
from agent.records.events import Event, Note, WorkProgressed
from agent.records.examples import Candidate, Example, Prompt
from agent.records.rounds import Outcome, Spend
from graphs.context import Context, run_folder
from graphs.services import levers
from graphs.services.brake import Brake, UnderWay, no_brake
from graphs.services.forgetting import Forgetting
from graphs.services.meter import ChargedStore, Meter
from graphs.services.shared_model import shared_backbone, shared_embedder
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    from eval.leaks import Leaks
    from eval.runner import Runner
    from eval.tasks.kept import KeptTask
    from eval.tasks.task import Task
    from graphs.services.llm import ExternalLlm
    from graphs.services.run_memory import RunMemory
    from memory.embedder import MiniLm
    from memory.run.pool import Pool
    from tools.diagnosis.classify import Classifier
    from tools.editing.gepa_editor import GepaEditor
    from tools.editing.textgrad_editor import TextGradEditor
    from tools.engines.openai_model import OpenAiModel
    from tools.engines.vllm_model import VllmModel
    from tools.llm.budget import LlmBudget
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
        self.brake: Brake = no_brake
        self.under_way = UnderWay(works=False)
        self._new_name = new_name
        self._lock: ExitStack | None = None
        self._kept: tuple[KeptTask, ...] = ()
        self.waits = ""  # what the run waits for right now, in a sentence
        self.loading = 0.0  # seconds that this process took to load the model, and to start its engine
        self.whole_adapters: set[str] = set()  # whose files this process has looked at; see graphs.lost_adapters

    # --- the run and its task ---

    @cached_property
    def folder(self) -> RunFolder:
        return run_folder(self.context, self._new_name)

    @cached_property
    def spec(self) -> "Task":
        """The task, read again from its source, as it fits the model.

        Raises BadInput if its digest, or that of a task to be kept, changed since the run began.
        """
        from graphs.services.task import read_task

        task, self._kept = read_task(self.folder, lambda: self.llm.chat("judge"), self.progress)
        return task

    def take_up_limits(self) -> None:
        """Let limits hold that a user has set since the task was read."""
        limits, task = self.folder.limits(), self.spec
        if limits is not None and limits != task.config.limits:
            vars(self)["spec"] = replace(task, config=task.config.limited(limits))
            vars(self).pop("policy", None)  # holds the old ones
            self.llm.extend(self.spec.config.budget)

    @property
    def kept_tasks(self) -> "tuple[KeptTask, ...]":
        """The other tasks that the run's weights must not lose. Raises BadInput, as `spec`."""
        _ = self.spec
        return self._kept

    def fit_rows(self) -> None:
        """Find out, once in a run, how the rows fit the model; the tokenizer is read for it, and no weights.

        Raises:
            BadInput: some are too long and the task refuses that, or the tokenizer cannot be used.
        """
        if self.folder.fitting():
            return
        from graphs.services.task import fit

        vars(self)["spec"] = fit(
            self.spec, self.kept_tasks, self.folder, self._retriever_among, self.listener, self.note,
            lambda kept, fitting: self.forgetting.store_of(kept).save_fitting(fitting),
        )  # fmt: skip

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
            try:
                with self.folder.as_begun():
                    self._mend()
            except BaseException:
                self.unlock()
                raise

    def outcome(self) -> Outcome | None:
        """The run's, if it has ended. A damaged ledger is mended first."""
        try:
            self.folder.rounds()
        except BadInput:
            self.lock()
        return self.folder.outcome()

    def _mend(self) -> None:
        """Look after the run's files, now that they are this process's alone."""
        measured = (self.folder.path / "rows.json").exists()
        self.folder.mend(self.note)
        if measured and self.folder.fitting() is None:  # it was damaged, and rows would be taken as they are
            self.fit_rows()

    def unlock(self) -> None:
        """Let others have the run, and its engine."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self.let_engine_go()

    def let_engine_go(self) -> None:
        """Where answers have come from an engine, nothing is kept for this run there any more."""
        if "_engine" in vars(self):
            self._engine.close()

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
    def model(self) -> LanguageModel:
        """What answers and scores; it looks up what prompts retrieve."""
        return self._model_with(self.retriever)

    def _model_with(self, retriever: Retriever) -> LanguageModel:
        from tools.model.retrieving import RetrievingLanguageModel

        return RetrievingLanguageModel(self._answering, retriever)

    @cached_property
    def _answering(self) -> LanguageModel:
        """The backbone or the task's engine, or what other runs have asked of it."""
        if self.pooled is None:
            return self._computing
        from tools.model.answer_cache import CachedLanguageModel

        spec, answers = self.spec, self.pooled.answers
        name = (*spec.config.base, *spec.config.generation.identity)
        return CachedLanguageModel(
            lambda: self._computing, answers, name, time.monotonic, spec.scorers.digest, self.meter.add
        )

    @property
    def _computing(self) -> LanguageModel:
        return self.backbone if self.spec.config.generation.engine == "own" else self._engine

    @cached_property
    def _engine(self) -> "OpenAiModel | VllmModel":
        from graphs.services.shared_engine import make_engine

        return make_engine(self)

    @cached_property
    def backbone(self) -> "Backbone":
        """This run's view of the loaded model: with its own adapters, progress and charges.

        Raises:
            BadInput: the model cannot be loaded, or does not take the run's LoRA settings.
        """
        began = time.monotonic()
        view = shared_backbone(
            self.spec.config, self.folder.adapter_folder, self.progress, self.charge, remark=self.note
        )
        self.loading += time.monotonic() - began
        return view

    @cached_property
    def retriever(self) -> Retriever:
        """Looks up the few-shot examples that prompts retrieve, for questions and for training rows."""
        return self._retriever_among(self.spec.train, self.spec.scorers)

    def _retriever_among(self, train: Sequence[Example], scorers: Scorers) -> Retriever:
        from memory.retrieval import NearestRows

        return NearestRows(train, scorers, lambda texts: self._embed(texts))

    @cached_property
    def pooled(self) -> "Pool | None":
        from memory.run.pool import Pool

        return Pool(Path(self.context.pool)) if self.context.pool else None

    @cached_property
    def forgetting(self) -> Forgetting:
        def model_of(kept: "Task") -> LanguageModel:
            return self._model_with(self._retriever_among(kept.train, kept.scorers))

        return Forgetting(self.folder, self.kept_tasks, lambda: self.model, model_of, self.meter.charge)

    @cached_property
    def evaluate(self) -> "Runner":
        from eval.runner import Runner

        learned_from = self.spec.config.edit.editor != "rules"  # a critique is of the whole answer
        store = ChargedStore(self.folder, self.meter.charge)
        return Runner(self.spec, self.model, self.folder.prompt, store, whole=learned_from)

    @cached_property
    def classifier(self) -> "Classifier":
        return levers.make_classifier(self)

    @cached_property
    def policy(self) -> Policy:
        return levers.make_policy(self)

    @cached_property
    def trainer(self) -> Trainer:
        return levers.make_trainer(self)

    @cached_property
    def editor(self) -> Editor:
        return levers.make_editor(self)

    @cached_property
    def textgrad(self) -> "TextGradEditor | None":
        """The LLM as editor, by TextGrad; None where that is not asked for."""
        return levers.make_textgrad(self)

    @cached_property
    def gepa(self) -> "GepaEditor | None":
        """The LLM as editor, by GEPA; None where that is not asked for."""
        return levers.make_gepa(self)

    def score_prompt(self, prompt: Prompt, adapter: str | None, names: Sequence[str]) -> Evaluation:
        """Scores of a prompt that an editor tries. Satisfies `agent.protocols.ScorePrompt`."""
        return self.evaluate(Candidate(prompt=self.folder.save_prompt(prompt), adapter=adapter), "train", names)

    @cached_property
    def leaks(self) -> "Leaks":
        from eval.leaks import Leaks

        return Leaks(self.spec.train, self.spec.validation)

    @cached_property
    def llm(self) -> "ExternalLlm":
        from graphs.services.llm import ExternalLlm

        config = self.spec.config
        return ExternalLlm(
            config.llm, config.roles, self.folder, config.budget,
            deadline=lambda: self.meter.deadline, notify=self.note, brake=lambda: self.brake(False),
            postgres=config.memory.postgres,
        )  # fmt: skip

    # --- memory across runs ---

    @cached_property
    def memory(self) -> "RunMemory":
        """What this run reads of others, and leaves for later ones. It is open only while it is used."""
        from graphs.services.run_memory import RunMemory

        return RunMemory(self.folder, self.spec, lambda texts: self._embed(texts), self.note)

    @property
    def embeds(self) -> bool:
        """Whether texts can be embedded here."""
        from memory.embedder import is_installed

        return is_installed() or "_embed" in vars(self)

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

    def waiting(self, text: str) -> None:
        """Tell the user what the run waits for, once; empty: it goes on."""
        if text and not self.waits:
            self.note(text)
        self.waits = text

    def show_report(self) -> None:
        """Rewrite the report, where this run has somebody to write it."""
        if self.report:
            self.report(self.folder, (*self.spec.validation, *self.spec.test))

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Shows how far long work is, and notes what it has used up. Satisfies `agent.protocols.Progress`."""
        self.brake(False)
        self.meter.charge()
        self.stream(WorkProgressed(what=what, done=done, total=total, note=note).model_dump(mode="json"))
        self.listener(what, done, total, note)

    def charge(self, spend: Spend) -> None:
        """Counts what a call to the model has used up. Probes show no progress: they are broken off here."""
        self.meter.add(spend)
        self.brake(False)

    def mind_budget(self) -> None:
        """Raises OutOfBudget: an action is under way, and what answers cost has used up a budget."""
        now = self.under_way
        if now.works and now.cancellable and (limit := self.llm.budget.used_up):
            raise OutOfBudget(f"Broken off: {limit} is used up.")

    @property
    def payer(self) -> "LlmBudget":
        """What answers of a hosted model are charged to: the run, where this process works on it; else nobody."""
        from tools.llm.budget import LlmBudget, UnsavedCallLog

        return self.llm.budget if self._lock else LlmBudget(UnsavedCallLog())

    @property
    def spend(self) -> Spend:
        """Of the run so far, with what the step under way has used up."""
        now = self.under_way
        return now.before + self.meter.spent if now.works else now.before

    @cached_property
    def meter(self) -> Meter:
        """Counts what the step under way uses up."""
        return Meter(self.folder.charges, lambda: self.llm.budget.spend)
