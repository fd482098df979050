"""The conversation as a graph for LangGraph's server: a thread is a chat about one run, which a worker works on."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import StreamWriter, interrupt
from typing_extensions import TypedDict

from agent.errors import NesyLoraError
from eval.tasks.task import load_config
from graphs.approval import Approve
from graphs.context import Context, run_folder
from graphs.control.client import steer
from graphs.control.steering import RunStatus, Steering
from graphs.conversation.agent import Decisions
from memory.run.folder import RunFolder
from ui.talk.lines import Line, line
from ui.talk.talk import YES_OR_NO, Talk

EVERY = 1.0  # seconds between two looks at a run that works


class Chat(TypedDict, total=False):
    """The state: messages, as chat front ends show them; and the name of the run, once there is one."""

    messages: Annotated[list[AnyMessage], add_messages]
    run: str


def build_chat() -> "CompiledStateGraph[Any, Any, Any, Any]":
    """The graph. The run is the context's; with a `task` in it, a run of the thread's own is begun."""
    graph: Any = StateGraph(Chat, context_schema=Context)
    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    graph.add_edge("talk", END)
    chat: CompiledStateGraph[Any, Any, Any, Any] = graph.compile()
    return chat


def talk(state: Chat, runtime: "Runtime[Context]", *, writer: StreamWriter) -> Chat:
    """Hear the last message, have it done, and answer once the run waits again.

    What the conversation asks of its own (before the end, a limit, a change by an LLM) is an interrupt. Until then
    nothing was done, so that this may run again from its start with the answer.
    """
    said: list[Line] = []
    folder = _folder(state, runtime.context or Context())
    try:
        with ExitStack() as stack:
            run = steer(folder)
            now = _settled(run, run.status(), writer)
            conversation = _conversation(run, folder, now, said, stack)
            _hear(conversation, _last(state.get("messages", ())), said)
            conversation.changed(_settled(run, run.status(), writer))
    except NesyLoraError as error:
        said.append(line(str(error), "fault"))
    return {"messages": [AIMessage("\n".join(text.text for text in said))], "run": folder.name}


def _folder(state: Chat, context: Context) -> RunFolder:
    """The run of this thread. Raises BadInput: none is named, or its task cannot be used."""
    thread = str(get_config().get("configurable", {}).get("thread_id", "")) or None
    named = context.model_copy(update={"run": context.run or state.get("run", "")})
    return run_folder(named, f"thread-{thread}" if thread else None)


def _conversation(run: Steering, folder: RunFolder, now: RunStatus, said: list[Line], stack: ExitStack) -> Talk:
    """A conversation that goes on: the plan that waits was shown with the last message."""
    conversation = Talk(run, folder, said.append, by_worker=True)
    if folder.rounds() or now.question:
        conversation.changed(now)
    settings = load_config(folder.task_file).llm
    if settings:
        from ui.talk.llm import listening

        conversation.listen(stack.enter_context(listening(folder, settings, now.limits, lambda _: None)))
    return conversation


def _hear(conversation: Talk, text: str, said: list[Line]) -> None:
    if conversation.waits != YES_OR_NO:
        if not text:
            return
        said.clear()
        conversation.hear(text)
    if conversation.waits == YES_OR_NO:
        [decision] = Decisions.model_validate(interrupt(_question(said[-1].text))).decisions
        conversation.hear("yes" if isinstance(decision, Approve) else "no")


def _question(text: str) -> dict[str, Any]:
    """In LangChain's human-in-the-loop schema."""
    return {
        "action_requests": [{"name": "go_ahead", "args": {}, "description": text}],
        "review_configs": [{"action_name": "go_ahead", "allowed_decisions": ["approve", "reject"]}],
    }


def _settled(run: Steering, now: RunStatus, writer: StreamWriter) -> RunStatus:
    """The run once it waits, is paused, or has ended; its steps are streamed."""
    while now.condition == "working":
        now = run.status(now.version, EVERY)
        if now.step:
            writer(now.step.model_dump(mode="json"))
    return now


def _last(messages: Sequence[AnyMessage]) -> str:
    last = messages[-1] if messages else None
    return str(last.text) if isinstance(last, HumanMessage) else ""
