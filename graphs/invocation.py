"""One call of the graph: from what it was given to its run, and what every node has in common."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from langgraph.config import get_config
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import StreamWriter

from agent.errors import BadInput, Cancelled, DiskFull, NesyLoraError, is_disk_full
from agent.records.base import digest
from agent.records.rounds import Outcome, Spend
from graphs.cancelling import CANCELLED, cancelled_trial
from graphs.context import Context, Report
from graphs.lost_adapters import restore_adapters
from graphs.services.brake import UnderWay
from graphs.services.run import RunServices
from graphs.state import Input, State, unreadable

Node = Callable[[State, RunServices], State]
"""Reads the state, and returns what changed."""


class Invocation:
    """What the nodes of one call share. LangGraph hands it to them as runtime context.

    Args:
        given: the call's own context: a `Context`, its fields in a dict, or the services of a session that is open.
            None in a parent graph: the parent's, which is used if it is a `Context`.
    """

    def __init__(self, given: object) -> None:
        self._context = Context.of(given) if isinstance(given, dict) else given or _parents_context()
        self._services = given if isinstance(given, RunServices) else None
        self._keeps_lock = self._services is not None  # the session's, which unlocks it
        self._guard = Lock()
        self._working = self._closed = False

    def services(self, state: State) -> RunServices:
        """The run's, made at the first node: from the context, and from the graph's input where that says nothing."""
        if self._services is None:
            values = {key: state[key] for key in Input.__annotations__ if key in state}  # type: ignore[literal-required]
            if isinstance(self._context, Context):
                values |= {name: getattr(self._context, name) for name in self._context.model_fields_set}
            context = Context.of(values)
            if not context.run and not context.task:
                raise BadInput(
                    "The graph was given no task. Invoke it with {'task': …} or {'run': …} as its input, or with "
                    "context=Context(task=…), or Context(run=…)."
                )
            self._services = RunServices(context, _run_name())
        return self._services

    @contextmanager
    def working(self) -> Iterator[None]:
        """A node's work. A call that was cancelled keeps the run until the node that works in a thread has ended.

        Raises:
            NesyLoraError: the call was cancelled before the node began.
        """
        with self._guard:
            if self._closed:
                raise NesyLoraError("The call of the graph was cancelled. Invoke it again to go on with the run.")
            self._working = True
        try:
            yield
        finally:
            with self._guard:
                self._working = False
                if self._closed:
                    self._unlock()

    def close(self) -> None:
        """Let go of the run, where this call took it."""
        with self._guard:
            self._closed = True
            if not self._working:
                self._unlock()

    def _unlock(self) -> None:
        if self._services and not self._keeps_lock:
            self._services.unlock()


def _parents_context() -> object:
    try:
        runtime: Runtime[Any] | None = get_runtime()
    except RuntimeError:  # nothing of LangGraph's runs around this call
        return None
    return runtime and runtime.context


def _run_name() -> str | None:
    """The name of the run that belongs to this thread, and in a parent graph to this call of the node.

    None where no thread can be resumed: the run is named by its task and the time.
    """
    place = get_config()["configurable"]
    if "thread_id" not in place:
        return None
    *parents, _ = place.get("checkpoint_ns", "").split("|")  # the last is the present node
    thread = str(place["thread_id"])
    readable = re.sub(r"[^A-Za-z0-9_.-]", "-", thread)
    differs = parents if readable == thread else [thread, *parents]  # from other runs of the same readable name
    return f"thread-{readable}" + (f"-{digest(differs)}" if differs else "")


def as_node(node: Node, report: Report | None = None) -> Any:
    """A node as LangGraph calls it, with what it used up added to `spend` (and to the trial, if it made one).

    Args:
        report: writes the report of runs whose context names nothing that does.
    """

    def run(state: State, runtime: Runtime[Context]) -> State:
        assert isinstance(runtime.context, Invocation), "Adaptation hands one to all nodes"
        with runtime.context.working():
            return charged(state, runtime.context.services(state), runtime.stream_writer)

    def charged(state: State, services: RunServices, stream: StreamWriter) -> State:
        services.report = services.report or report
        services.stream = stream
        if outcome := services.outcome():
            number = len(services.folder.rounds())  # no node works, and no test row is opened, a second time
            return {"run": services.folder.name, "number": number, "decision": None, **results(services, outcome)}
        services.lock()
        if fault := unreadable(state):
            raise BadInput(
                f"The checkpoint of run {services.folder.name} was written by another version of NeSyLoRA ({fault}). "
                f"Give the run a new thread: it goes on after its last complete round."
            )
        services.take_up_limits()
        before, minutes = state.get("spend", Spend()), services.spec.config.budget.minutes
        services.meter.begin(_step(node, state), before, minutes)
        services.under_way = UnderWay(state.get("number", 0) + 1, node.__name__, before)
        try:
            try:
                services.brake(True)
                if services.under_way.cancellable and services.folder.is_cancelled(services.under_way.round):
                    raise Cancelled
                restore_adapters(state, services, judged=node.__name__ in ("judge", "remember"))
                update = node(state, services)
            except Cancelled as error:
                update = cancelled_trial(state, node.__name__ == "judge", str(error) or CANCELLED)
            finally:  # for another try of this node, and for a run that begins anew without the checkpoint of this step
                services.meter.charge()
            own = services.meter.spent
            if "trial" in update:
                spend = update["trial"].spend + own + services.meter.counted
                update["trial"] = update["trial"].model_copy(update={"spend": spend})
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise DiskFull(services.folder.path, services.folder.size // (1 + len(services.folder.rounds()))) from error
        finally:
            services.meter.end()
            services.under_way = services.under_way._replace(works=False)
        return {**update, "spend": own + update.get("spend", Spend())}

    # Not functools.wraps: LangGraph reads the signature, and would follow it to the node's own.
    run.__name__, run.__doc__ = node.__name__, node.__doc__
    return run


def _step(node: Node, state: State) -> str:
    """A step's name in charge.json: the same after a kill, another one when a round plans again after a refusal."""
    refused = len(state.get("refused", ()))
    return f"{state.get('number', 0)}-{node.__name__}" + (f"-{refused}" if refused else "")


def results(services: RunServices, outcome: Outcome) -> State:
    """A run's outcome, and what else a parent graph may want to know of the best pair."""
    folder, best = services.folder, outcome.best
    return {
        "best": best,
        "outcome": outcome,
        "prompt": folder.prompt(best.prompt),
        "adapter": str(folder.adapter_folder(best.adapter)) if best.adapter else None,
        "test": outcome.best_test,
        "report": str(folder.report_html) if folder.report_html.exists() else None,
    }
