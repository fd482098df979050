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

from agent.errors import Busy, NesyLoraError
from eval.tasks.task import load_config
from graphs.approval import Approve
from graphs.context import Context, run_folder
from graphs.control.client import steer
from graphs.control.steering import RunStatus, Steering
from graphs.conversation.agent import Decisions
from graphs.conversation.phrases import understood
from memory.run.folder import RunFolder
from ui.talk.lines import Line, line
from ui.talk.talk import YES_OR_NO, Talk

EVERY = 1.0  # seconds between two looks at a run that works


class Chat(TypedDict, total=False):
    """The state: messages, as chat front ends show them; the name of the run, once there is one; `seen` is the mark of
    the plan that was shown last (`ui.talk.plans.mark`)."""

    messages: Annotated[list[AnyMessage], add_messages]
    run: str
    seen: str


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
    seen = state.get("seen", "")
    folder = _folder(state, runtime.context or Context())
    try:
        with ExitStack() as stack:
            run = steer(folder)
            now = _settled(run, run.status(), writer)
            conversation = Talk(run, folder, said.append, by_worker=True)
            conversation.saw(seen)
            if not now.question and folder.rounds():
                conversation.changed(now)
            _hear(conversation, _last(state.get("messages", ())), said, _listen(conversation, now, stack))
            conversation.changed(_settled(run, run.status(), writer))
            seen = conversation.seen
    except NesyLoraError as error:
        said.append(line(str(error), "fault"))
    answer = AIMessage("\n".join(text.text for text in said))
    return {"messages": [answer], "run": folder.name, "seen": seen}


def _folder(state: Chat, context: Context) -> RunFolder:
    """The run of this thread. Raises BadInput: none is named, or its task cannot be used."""
    thread = str(get_config().get("configurable", {}).get("thread_id", "")) or None
    named = context.model_copy(update={"run": context.run or state.get("run", "")})
    return run_folder(named, f"thread-{thread}" if thread else None)


def _listen(conversation: Talk, now: RunStatus, stack: ExitStack) -> str:
    """Until the stack is left. Returns why plain language is off; empty where it is not, or there is no LLM."""
    settings = load_config(conversation.folder.task_file).llm
    if not settings:
        return ""
    from ui.talk.llm import listening

    try:
        listener = stack.enter_context(listening(conversation.folder, settings, now.limits, lambda _: None))
    except Busy as error:
        return f"Plain language is off: {error}"
    conversation.listen(listener)
    return ""


def _hear(conversation: Talk, text: str, said: list[Line], off: str) -> None:
    """Hear it, or have what stands answered first.

    Args:
        off: why no LLM hears it, which counts only for what needs one.
    """
    if conversation.waits != YES_OR_NO:
        if not text:
            return
        said.clear()
        if off and understood(text) is None:
            said.append(line(off, "fault"))
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
