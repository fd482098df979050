"""A run under way: its lock, its checkpoints and its graph, from the first node to the end or the next question."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, cast

from agent.errors import BadInput, NesyLoraError
from agent.protocols import Listener
from agent.records.actions import Stop
from agent.records.base import digest
from agent.records.events import RunStarted
from agent.records.examples import Candidate
from agent.records.limits import Extension
from agent.records.rounds import Round
from agent.records.signal import Diagnosis
from graphs.approval import APPROVE, Question
from graphs.context import Context, Report, Silent
from graphs.services.garbage_collection import without_garbage_collection
from graphs.services.levers import check_trainer
from graphs.services.run import RunServices
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.types import Command, StateSnapshot

    from graphs.adapt import Adaptation
    from graphs.checkpoints import Checkpoints
    from graphs.postgres import PostgresCheckpoints
    from graphs.state import State


class Session:
    """A run under way in this process. Made by `open_session`."""

    def __init__(self, services: RunServices) -> None:
        self.services = services
        self._saver: Checkpoints | PostgresCheckpoints | None = None
        self._announced = False

    def close(self) -> None:
        """Close the checkpoint database, if it was opened."""
        if self._saver is None:
            return
        try:
            if self.services.spec.config.checkpoints and self.finished:
                with suppress(NesyLoraError):  # it is gone, and the run needs it no more
                    self._saver.forget()  # from a server that has no end of runs
        finally:
            self._saver.close()

    @property
    def question(self) -> Question | None:
        """The question that the run waits for an answer to, or None."""
        asked = [question for task in self._snapshot().tasks for question in task.interrupts]
        return Question.model_validate(asked[0].value) if asked else None

    @property
    def state(self) -> "State":
        """The state of the last checkpoint."""
        return cast("State", self._snapshot().values)

    @property
    def seen(self) -> "State":
        """What may be looked at: as the last checkpoint has it; if that is lost, as the ledger has it.

        Raises:
            BadInput: nothing was measured yet.
        """
        state, folder = self.state, self.services.folder
        if "best" in state and "diagnosis" in state:
            return state
        first, rounds, outcome = folder.baseline(), folder.rounds(), folder.outcome()
        if first is None:
            raise BadInput(f"Nothing was measured yet in run {folder.name}: it has to score the seed prompt first.")
        last = rounds[-1] if rounds else first
        spend = outcome.spend if outcome else last.spend
        diagnosis = last.diagnosis if isinstance(last, Round) else Diagnosis(failing=0, total=0)
        return {"number": len(rounds), "best": last.best, "spend": spend, "diagnosis": diagnosis}

    @property
    def best(self) -> Candidate:
        """The best pair so far; of a run that has ended, its ledger's, even if its checkpoints are lost."""
        outcome = self.services.folder.outcome()
        return outcome.best if outcome else self.state["best"]

    @property
    def finished(self) -> bool:
        return self.services.folder.outcome() is not None

    def restart(self) -> None:
        """Go on after the last complete round, at the next `go`: the ledger knows what the checkpoints do not."""
        _ = self._graph
        assert self._saver is not None, "the graph has one"
        self._saver.forget()

    def go(self, answer: Mapping[str, object] | None = None) -> Question | None:
        """Run to the end (None), or to the next question. Goes on from the last checkpoint.

        Args:
            answer: to the open question; see `graphs.approval`. After an answer that cannot be executed, the
                question is asked again, with what is wrong in its `fault`.

        Raises:
            BadInput: an answer, and no question is open; or this machine cannot train as the task asks for.
            NesyLoraError: the run stopped otherwise.
        """
        if self.finished:
            if not self.services.folder.reported:  # killed between its last row and its last report
                self.services.show_report()
            return None
        check_trainer(self.services.spec.config)  # before hours of work, not at the first training
        self._announce()
        question = self.question
        if answer is None and question:
            if self.services.supervised:
                return question
            answer = APPROVE  # asked in a chat that has ended
        elif answer is not None and not question:
            raise BadInput(
                f"Run {self.services.folder.name} waits with no question. Go on to its next without an answer."
            )
        self._graph.invoke(self._input(answer), self._config, context=self.services, durability="sync")
        question = self.question
        if question is None and not self.finished:
            raise NesyLoraError(
                f"Run {self.services.folder.name} stopped without an end and without a question, at "
                f"{', '.join(self._snapshot().next) or 'no step'}. What was completed is kept; go on with resume."
            )
        return question

    def _input(self, answer: Mapping[str, object] | None) -> "Command[str] | dict[str, str] | None":
        """The graph's input: an answer, None to go on from the last checkpoint, or the name of a run that begins."""
        if answer is not None:
            from langgraph.types import Command

            return Command(resume=answer)
        return None if self._snapshot().values else {"run": self.services.folder.name}

    @cached_property
    def _graph(self) -> "Adaptation":
        """Importing LangGraph takes a second: the user reads what the run is meanwhile."""
        with without_garbage_collection():
            from graphs.adapt import build_graph
            from graphs.checkpoints import repair

        self._saver = self._opened()
        graph, folder = build_graph(self._saver), self.services.folder
        rounds, ended = len(folder.rounds()), bool(folder.outcomes())
        repair(graph, self._saver, self._config, self.services.note, rounds=rounds, ended=ended)
        there = graph.get_state(self._config)
        if not self.finished and (there.values.get("outcome") or self._is_overtaken(there)):
            self._saver.forget()  # it was opened again, or plans anew: it goes on from its ledger
        return graph

    def _is_overtaken(self, there: "StateSnapshot") -> bool:
        """Whether limits were set since the last round, and the end is planned, or a round that they do not hold."""
        folder, decision = self.services.folder, there.values.get("decision")
        rows = folder.known_rows()
        if not decision or not {"approve", "finish"} & {*there.next} or not rows or not isinstance(rows[-1], Extension):
            return False
        return isinstance(decision.move, Stop) or len(folder.rounds()) >= self.services.spec.config.budget.rounds

    def _opened(self) -> "Checkpoints | PostgresCheckpoints":
        """The run's checkpoints, in its folder or on a server. Raises BadInput: what they need is not installed."""
        folder, address = self.services.folder, self.services.spec.config.checkpoints
        if address is None:
            from graphs.checkpoints import Checkpoints

            return Checkpoints(folder.checkpoints, self.services.note)
        try:
            from graphs.postgres import PostgresCheckpoints
        except ImportError as error:
            raise BadInput(
                f"`checkpoints` on a Postgres server needs more packages ({error}): pip install 'nesylora[postgres]'"
            ) from None
        return PostgresCheckpoints(address, self._thread, self.services.waiting)

    @cached_property
    def _thread(self) -> str:
        """Of the checkpoints. On a server there are runs of the same name, and copies of this one."""
        folder = self.services.folder
        if self.services.spec.config.checkpoints is None:
            return folder.name
        return f"{folder.name}-{digest([str(folder.path), folder.about.created])}"

    @cached_property
    def _config(self) -> "RunnableConfig":
        from graphs.adapt import steps

        most = steps(10_000)  # not of the budget: that may be extended while the graph works
        return {"configurable": {"thread_id": self._thread}, "recursion_limit": most}

    def _snapshot(self) -> "StateSnapshot":
        return self._graph.get_state(self._config)

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            config, folder = self.services.spec.config, self.services.folder
            policy = "LLM planner" if config.plans else config.policy
            self.services.emit(
                RunStarted(
                    name=folder.name, task=config.name, model=config.model, policy=policy, folder=str(folder.path)
                )
            )
            for sentence in self.services.spec.brought:
                self.services.note(sentence)
            for warning in (*self.services.spec.warnings, *self.services.llm.warnings):
                self.services.note(f"Warning: {warning}")


@contextmanager
def open_session(
    folder: RunFolder,
    *,
    pool: str = "",
    supervised: bool = False,
    listener: Listener | None = None,
    report: Report | None = None,
) -> Iterator[Session]:
    """The run, locked for this process, with its checkpoints in SQLite.

    Args:
        pool: see `graphs.context.Context`.

    Raises:
        Busy: another live process has the run; names it.
        BadInput: the run's rows have changed since it began; or it was begun by a version whose runs this one cannot
            read. What is raised inside while nothing has been measured takes the run folder away.
    """
    services = RunServices(
        Context(run=str(folder.path), pool=pool, supervised=supervised, listener=listener or Silent(), report=report)
    )
    with services.locked():
        with folder.as_begun():
            folder.rounds()
        session = Session(services)
        try:
            yield session
        except BadInput:
            folder.discard_unless_begun()  # the user will correct the task; an empty run would only be in the way
            raise
        finally:
            session.close()
