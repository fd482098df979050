"""A run under way: its lock, its checkpoints and its graph, from the first node to the end or the next question."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agent.errors import NesyLoraError
from agent.moves import Decision
from agent.protocols import Listener
from agent.records import Example, Record
from graphs.collector import collector_at_rest
from graphs.context import Context, Silent
from memory.ledger import RunFolder

if TYPE_CHECKING:
    from graphs.state import State

# The history is the ledger's; a resume needs the last checkpoint only, and the one before if that is broken. The
# trigger forgets older ones in the transaction that writes a new one.
KEEP_TWO = """
CREATE TRIGGER IF NOT EXISTS keep_two AFTER INSERT ON checkpoints BEGIN
    DELETE FROM checkpoints WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id NOT IN (SELECT checkpoint_id FROM checkpoints WHERE thread_id = NEW.thread_id
            AND checkpoint_ns = NEW.checkpoint_ns ORDER BY checkpoint_id DESC LIMIT 2);
    DELETE FROM writes WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id NOT IN (SELECT checkpoint_id FROM checkpoints WHERE thread_id = NEW.thread_id
            AND checkpoint_ns = NEW.checkpoint_ns);
END;
"""
Report = Callable[[RunFolder, Sequence[Example]], object]


class Question(Record):
    """What a supervised run asks before a move."""

    number: int
    decision: Decision
    cost: str


class Session:
    """Made by `open_session`. `context` holds the run's services."""

    def __init__(self, context: Context, checkpoints: sqlite3.Connection) -> None:
        self.context = context
        self._checkpoints = checkpoints

    @property
    def question(self) -> Question | None:
        """The question that the run is waiting with, if it is."""
        asked = [question for task in self._snapshot().tasks for question in task.interrupts]
        return Question.model_validate(asked[0].value) if asked else None

    @property
    def state(self) -> "State":
        """The state of the last checkpoint."""
        values: State = self._snapshot().values
        return values

    @property
    def finished(self) -> bool:
        return self.context.folder.outcome() is not None

    def go(self, answer: dict[str, Any] | None = None) -> Question | None:
        """Run to the end (None), or to the next question. Goes on from the last checkpoint.

        Args:
            answer: to the open question; see `graphs.nodes.approve`.
        """
        if self.finished:
            return None
        self._tell_start()
        started = bool(self._snapshot().values)
        given: Any = None if started else {"run": self.context.folder.name, "number": 0}
        if answer is None and self.question:
            if self.context.supervised:
                return self.question
            answer = {"approve": True}  # asked in a chat that nobody sits at any more
        if answer is not None:
            from langgraph.types import Command

            given = Command(resume=answer)
        self._graph.invoke(given, self._config, context=self.context, durability="sync")
        return self.question

    @cached_property
    def _graph(self) -> Any:
        """Importing LangGraph takes a second: the user reads what the run is meanwhile."""
        with collector_at_rest():
            from langgraph.checkpoint.sqlite import SqliteSaver

            from graphs.adapt import build_graph

        saver = SqliteSaver(self._checkpoints)
        saver.setup()
        self._checkpoints.executescript(KEEP_TWO)
        return build_graph(saver)

    @cached_property
    def _config(self) -> dict[str, Any]:
        from graphs.adapt import steps

        limit = steps(self.context.spec.config.budget.rounds)
        return {"configurable": {"thread_id": self.context.folder.name}, "recursion_limit": limit}

    def _snapshot(self) -> Any:
        return self._graph.get_state(self._config)

    def _tell_start(self) -> None:
        if not hasattr(self, "_told"):
            self._told = True
            config, folder = self.context.spec.config, self.context.folder
            self.context.tell(
                "run",
                name=folder.name,
                task=config.name,
                model=config.model,
                policy="LLM planner" if config.plans else config.policy,
                folder=str(folder.path),
            )
            for warning in (*self.context.spec.warnings, *self.context.llm.warnings):
                self.context.tell("note", text=f"Warning: {warning}")


@contextmanager
def open_session(
    folder: RunFolder,
    *,
    pool: str = "",
    supervised: bool = False,
    listener: Listener | None = None,
    report: Report | None = None,
) -> Iterator[Session]:
    """The run for this process alone, with its checkpoints in SQLite.

    Args:
        pool: see `Context`.

    Raises:
        Busy: another live process has the run; names it.
        BadInput: the run's rows have changed since it began.
    """
    context = Context(
        run=str(folder.path), pool=pool, supervised=supervised, listener=listener or Silent(), report=report
    )
    with folder.locked(), closing(sqlite3.connect(folder.checkpoints, check_same_thread=False)) as connection:
        _check(connection, folder)
        yield Session(context, connection)


def _check(connection: sqlite3.Connection, folder: RunFolder) -> None:
    try:
        connection.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise NesyLoraError(
            f"{folder.checkpoints} cannot be read ({error}), so run {folder.name} cannot go on. Its ledger, prompts "
            f"and adapters are whole; start a new run, which recalls its prompts."
        ) from None
