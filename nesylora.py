"""NeSyLoRA: tune the weights or rewrite the prompt, round after round, decided by signal. The front door.

Importing this loads nothing heavy; `adapt` does the main job, `main` is the console script `nesylora`.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

    from agent.protocols import Listener
    from agent.records.events import Event
    from agent.records.examples import Prompt
    from agent.records.rounds import Outcome
    from export.loaded import Bundle
    from graphs.adapt import Adaptation

__all__ = [
    "Adapted", "Queued", "Shadowed", "adapt", "adapt_all", "build_graph", "extend", "load", "main", "messages",
    "resume", "server_chat", "server_graph", "stream",
]  # fmt: skip

Overrides = Sequence[str] | Mapping[str, object]
PACKAGES = ("agent", "tools", "memory", "eval", "graphs", "export", "ui", "bench")


class Shadowed(ImportError):
    """A folder or file of the user's own is found in place of a package of ours."""


class Adapted(NamedTuple):
    """What a run brought. `adapter` is a peft folder, or None where the bare base with `prompt` was best."""

    run: Path
    prompt: Prompt
    adapter: Path | None
    outcome: Outcome

    def messages(self, question: str, history: Sequence[Mapping[str, str]] = ()) -> list[dict[str, str]]:
        """What to send to a model that serves `adapter`, for a new question; see `nesylora.messages`."""
        return messages(self.run, question, history)

    def generate(self, questions: str | Sequence[str]) -> list[str]:
        """Greedy answers of the best pair to new questions, in order. The first call may load the model.

        Raises:
            agent.errors.NesyLoraError: with a message that says what is wrong, where, and the way out.
        """
        from graphs.serving import generate

        return generate(self.run, [questions] if isinstance(questions, str) else questions)

    def export(
        self,
        into: str | Path | None = None,
        *,
        merged: bool = False,
        gguf: Sequence[str] = (),
        ollama: bool = False,
        base: str | None = None,
    ) -> Path:
        """Write the best pair as a bundle for other engines; see docs/export.md.

        Args:
            into: its folder; by default `bundle` in the run's.
            merged: the whole model too, as safetensors.
            gguf: any of f16 and q8_0, the whole model as GGUF, and lora, the adapter alone.
            ollama: a Modelfile for the GGUF.
            base: the hub's name of a base that the task takes from a folder.

        Returns:
            The bundle's folder.

        Raises:
            agent.errors.NesyLoraError: with a message that says what is wrong, where, and the way out.
        """
        from export.bundle import Wanted, export_run

        return export_run(self.run, Path(into) if into else None, Wanted(merged, tuple(gguf), ollama, base))


def load(bundle: str | Path, base: str | None = None) -> Bundle:
    """A bundle that `nesylora export` wrote, to be asked: its `messages` and `generate` need no run.

    Args:
        bundle: its folder.
        base: a hub name or folder of the base, in place of the one that the bundle names.

    Raises:
        agent.errors.NesyLoraError: with a message that says what is wrong, where, and the way out.
    """
    _check_packages()
    from export.loaded import Bundle

    return Bundle(Path(bundle), base)


class Queued(NamedTuple):
    """What became of a task of a queue. `adapted` is None where it failed, or had no turn; `reason` says why."""

    task: str
    state: str  # finished, failed, waits, removed (by a user, meanwhile), left out (with skip_broken)
    reason: str
    adapted: Adapted | None


def adapt(
    task: str | Path,
    *,
    overrides: Overrides = (),
    runs: str | Path = "runs",
    name: str | None = None,
    listener: Listener | Callable[[Event], object] | None = None,
) -> Adapted:
    """Adapt a model to a task, from the seed prompt to the sealed test, and write the report.

    Args:
        task: a task.yaml, or a folder that holds one.
        overrides: settings of the task: nested, as {"budget": {"rounds": 4}}, or a list of texts such as "a.b=c".
        runs: where run folders and the prompt memory live.
        name: of the run's folder; by default the task's name and the time.
        listener: is called with everything that happens, progress included (`agent.records.events`); or an
            `agent.protocols.Listener`, which gets progress apart.

    Raises:
        agent.errors.NesyLoraError: with a message that says what is wrong, where, and the way out.
        Shadowed: Python finds a folder of yours in place of one of our packages.
    """
    _check_packages()
    from ui.from_python import begun, work

    return Adapted(*work(begun(Path(task), overrides, Path(runs), name), listener))


def resume(run: str | Path, *, listener: Listener | Callable[[Event], object] | None = None) -> Adapted:
    """Go on with a run that was stopped or killed, to its end. One that has ended is only read.

    Args:
        run: its folder, such as runs/NAME.
        listener: as of `adapt`.

    Raises:
        agent.errors.NesyLoraError: as `adapt`; agent.errors.Busy: another process works on it.
    """
    _check_packages()
    from memory.run.folder import RunFolder
    from ui.from_python import work

    return Adapted(*work(RunFolder.open(Path(run)), listener))


def extend(
    run: str | Path, *, listener: Listener | Callable[[Event], object] | None = None, **limits: float | None
) -> Adapted:
    """Set other limits for a run, and go on with it. Its next result on the test rows is marked as seen before.

    Args:
        run: its folder, such as runs/NAME.
        listener: as of `adapt`.
        limits: what holds from now on, for the whole run: rounds, minutes, train_tokens, usd, llm_tokens, target. None
            lifts one.

    Raises:
        agent.errors.NesyLoraError: as `resume`; no such limit, or nothing is changed.
    """
    _check_packages()
    from memory.run.folder import RunFolder
    from ui.from_python import extend

    extend(RunFolder.open(Path(run)), limits)
    return resume(run, listener=listener)


def stream(
    task: str | Path, *, overrides: Overrides = (), runs: str | Path = "runs", name: str | None = None
) -> Iterator[Event]:
    """The same as `adapt`, or `resume`, as an iterator of all that happens; a thread works meanwhile.

    The first event names the run's folder, for `resume`, which returns the result once the run has ended. To stop early
    (break, then close the iterator) cuts the step under way off; the run can be gone on with. Others can steer it
    meanwhile: see docs/control.md.

    Args:
        task: a task.yaml or its folder; or the folder of a run, which is gone on with.
        overrides, runs, name: as of `adapt`, for a new run.

    Raises:
        agent.errors.NesyLoraError: as `adapt`.
    """
    _check_packages()
    from memory.run.folder import RunFolder
    from ui.from_python import begun, events

    begins = not (Path(task) / "run.json").is_file()
    return events(begun(Path(task), overrides, Path(runs), name) if begins else RunFolder.open(Path(task)))


def adapt_all(
    tasks: Sequence[str | Path],
    *,
    overrides: Overrides = (),
    runs: str | Path = "runs",
    until: str | None = None,
    minutes: float | None = None,
    usd: float | None = None,
    llm_tokens: int | None = None,
    train_tokens: int | None = None,
    notify: str = "",
    queue: str | Path | None = None,
    skip_broken: bool = False,
) -> list[Queued]:
    """Adapt to several tasks one after another, each in a process of its own, so that none stops the others.

    What is registered in this process (scorers, editors, policies) is not known to those processes.

    Args:
        tasks: task.yaml files, or folders that hold one. They are checked before anything begins.
        overrides: settings of all tasks, as of `adapt`.
        runs: where run folders, the queue's folder and the prompt memory live.
        until: a time such as 07:00 at which all is to be done.
        minutes, usd, llm_tokens, train_tokens: what all tasks may use together, beside what each may by its task.yaml.
        notify: a command or an address that is told, in JSON, at the end and at trouble.
        queue: the folder of an earlier call to go on with; `tasks` must be empty then.
        skip_broken: tasks that cannot be used are left out, as long as one can.

    Raises:
        agent.errors.NesyLoraError: a task cannot be used, or not even one round of each fits.
        Shadowed: Python finds a folder of yours in place of one of our packages.
    """
    _check_packages()
    from ui.from_python import queued

    done = queued(
        tasks, overrides, Path(runs), until=until, minutes=minutes, usd=usd, llm_tokens=llm_tokens,
        train_tokens=train_tokens, notify=notify, queue=queue, skip_broken=skip_broken,
    )  # fmt: skip
    return [Queued(task, state, reason, found and Adapted(*found)) for task, state, reason, found in done]


def messages(run: str | Path, question: str, history: Sequence[Mapping[str, str]] = ()) -> list[dict[str, str]]:
    """The best prompt of a run around a new question, as chat messages in OpenAI's form.

    Where the prompt retrieves few-shot examples, the train rows nearest to the question are among them. For that the
    task's rows must still be where the run found them, unchanged.

    Args:
        run: its folder, such as runs/NAME.
        history: earlier turns of the conversation, oldest first, in the same form.

    Raises:
        agent.errors.NesyLoraError: with a message that says what is wrong, where, and the way out.
    """
    _check_packages()
    from graphs.serving import messages

    return messages(Path(run), question, history)


def build_graph(checkpointer: BaseCheckpointSaver[str] | None = None) -> Adaptation:
    """The same as a LangGraph graph: to be invoked, streamed, or a node of a graph of your own.

    Its input is `graphs.state.Input` (task, overrides, budget, …), its output `graphs.state.Output` (outcome, prompt,
    adapter, test, report). It writes the report after every round.

    Args:
        checkpointer: keeps the state between its steps; None: a parent graph's, or that of LangGraph's server.

    Raises:
        Shadowed: Python finds a folder of yours in place of one of our packages.
    """
    _check_packages()
    from graphs.adapt import build_graph
    from ui.report.write import write_report

    return build_graph(checkpointer, report=write_report)


async def server_graph() -> Adaptation:
    """What langgraph.json names. LangGraph's server asks for it at every request, and brings its own checkpointer."""
    import asyncio

    return await asyncio.to_thread(build_graph)  # its first imports read files, which the server's loop forbids


async def server_chat() -> CompiledStateGraph[Any, Any, Any, Any]:
    """The conversation about a run, which langgraph.json names beside it."""
    import asyncio

    def build() -> CompiledStateGraph[Any, Any, Any, Any]:
        _check_packages()
        from ui.talk.served import build_chat

        return build_chat()

    return await asyncio.to_thread(build)


def main() -> None:
    """The console script."""
    atexit.register(gc.freeze)  # at the end all is let go: with torch loaded, to search it for garbage takes a second
    try:
        _check_packages()
    except Shadowed as error:
        print(f"nesylora: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    from bench.decisions.cli import add_commands
    from ui.cli import run
    from ui.control.signals import quiet_end

    try:
        raise SystemExit(run(more=[add_commands], alone=True))
    finally:
        quiet_end()


def _check_packages() -> None:
    """Raises Shadowed where something else has the name of a package of ours, with the ways to go on."""
    home = Path(__file__).resolve().parent
    for name in PACKAGES:
        found = [place.resolve() for place in _places(name)]
        if home / name not in found[:1]:
            other = f"{found[0]} has the name of" if found else "Python does not find"
            raise Shadowed(
                f"{other} NeSyLoRA's own package `{name}` ({home / name})"
                f"{', and Python finds it first' if found else ''}. Start from a folder that holds no `{name}`, giving "
                f"your task by its whole path; or start the command as `nesylora` or `python -P -m nesylora`, which do "
                f"not look into the present folder; or rename yours. A script is best kept in a folder without "
                f"`{name}`, and no such folder in PYTHONPATH."
            )


def _places(name: str) -> Iterator[Path]:
    """Where a package is, or would be imported from; several where it is split. Imports nothing."""
    loaded = sys.modules.get(name)
    spec = loaded.__spec__ if loaded else find_spec(name)
    if spec and spec.submodule_search_locations is not None:
        yield from map(Path, spec.submodule_search_locations)
    elif spec and spec.origin:
        yield Path(spec.origin)


if __name__ == "__main__":
    main()
