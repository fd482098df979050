"""A conversation with an LLM, as a LangGraph agent: it hears a sentence, looks, asks before what is costly, and acts.

What it does are the commands that a user has, so it can do nothing more than they; what it says is held to the records.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Literal, Protocol

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, StreamWriter, interrupt
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from agent import prompts
from agent.errors import BadInput, NesyLoraError
from agent.protocols import Chat
from agent.records.base import Record
from graphs.approval import ActionRequest, Approve, Reject, ReviewConfig
from graphs.checkpoints import Checkpoints
from graphs.conversation.grounding import checked
from graphs.conversation.named import as_named
from graphs.conversation.phrases import asks
from graphs.conversation.tools import ACTS, LOOKS, Answer, Tool, command_of
from memory.run.folder import RunFolder
from memory.storage.lock import held

MOST_LOOKS = 3  # before it must answer
MOST_LINES = 8  # of what was said before
MOST_CHARACTERS = 1500  # of what a look found
TOOL: TypeAdapter[Any] = TypeAdapter(Tool)


class Desk(Protocol):
    """What the agent works with: the run, through the commands that a user has."""

    def facts(self) -> str:
        """Where the run stands, and what it waits for."""
        ...

    def perform(self, command: str) -> str:
        """What a command answered. Raises NesyLoraError where it cannot be followed."""
        ...

    def carried_out(self) -> Sequence[str]:
        """The command behind each round of the run so far, such as "/train"; "/stop" where it was cancelled."""
        ...

    def weigh(self, command: str) -> str:
        """What a command would do and cost, where it is costly or final; else empty."""
        ...


class Said(TypedDict):
    """A line of the conversation."""

    who: Literal["they", "you"]
    text: str


class Turn(TypedDict, total=False):
    """A checkpoint: what was said, and where this turn stands. It does not grow."""

    before: Sequence[Said]
    said: str
    found: Sequence[str]
    choice: dict[str, Any] | None
    cost: str
    answer: str


class Edit(Record):
    """Do this instead."""

    class EditedAction(Record):
        name: str
        args: dict[str, Any] = Field(default_factory=dict)

    type: Literal["edit"] = "edit"
    edited_action: EditedAction


class Decisions(Record):
    """The answer to a question before an action, in LangChain's human-in-the-loop schema."""

    decisions: tuple[Approve | Edit | Reject] = Field()


class Event(Record):
    """What the agent shows while it works: a command that it gives, or what it answers in the end."""

    kind: Literal["command", "answer", "left out", "question"]
    text: str


class ChatAgent:
    """The agent of one run. Its thread is in the run folder, and is gone on with at the next visit.

    Args:
        chat: the LLM, in the role `chat`.
        saver: where the thread is kept.
        thread: its id.
    """

    def __init__(self, chat: Chat, desk: Desk, saver: Checkpoints, thread: str) -> None:
        self._chat = chat
        self._desk = desk
        self._config: Any = {"configurable": {"thread_id": thread}}
        self._graph = _graph(self, saver)

    def hear(self, said: str) -> Iterator[Event]:
        """What a user says, and what comes of it. The last event is an answer, or a question before an action.

        Raises:
            LlmUnavailable: it did not answer, or nothing that can be used. Nothing was done.
        """
        before = self._state().get("before", ())
        yield from self._stream({"said": said, "before": before, "found": [], "choice": None, "cost": "", "answer": ""})

    def decide(self, answer: Mapping[str, object]) -> Iterator[Event]:
        """The answer to the open question, in LangChain's human-in-the-loop schema.

        Raises:
            BadInput: no question is open.
        """
        if not self.question:
            raise BadInput("Nothing is asked.")
        yield from self._stream(Command(resume=dict(answer)))

    def ask_again(self, turn: Turn) -> Iterator[Event]:
        """The question of an earlier turn once more, which a later one has pushed aside."""
        asked: Turn = {"said": turn["said"], "found": [], "choice": turn["choice"], "cost": turn.get("cost", "")}
        self._graph.update_state(self._config, asked, as_node="think")
        yield from self._stream(None)

    @property
    def open_turn(self) -> Turn | None:
        """The turn whose question is open; None where none is."""
        return self._state() if self.question else None

    @property
    def question(self) -> str:
        """What is asked before an action, in words; empty where nothing is."""
        asked = [found.value for task in self._graph.get_state(self._config).tasks for found in task.interrupts]
        return str(asked[0]["action_requests"][0]["description"]) if asked else ""

    def _state(self) -> Turn:
        values: Turn = self._graph.get_state(self._config).values
        return values

    def _stream(self, given: Any) -> Iterator[Event]:
        for part in self._graph.stream(given, self._config, stream_mode="custom", durability="sync"):
            yield Event.model_validate(part)
        if self.question:
            yield Event(kind="question", text=self.question)

    # --- the nodes ---

    def think(self, turn: Turn, *, writer: StreamWriter) -> Turn:
        """The LLM's choice. After so many looks it can only answer."""
        looks = len(turn["found"])
        acts = () if asks(turn["said"]) else ACTS
        tools = (Answer, *acts, *LOOKS) if looks < MOST_LOOKS else (Answer,)
        lines = [f"{line['who']}: {line['text']}" for line in turn["before"]]
        facts, found = self._desk.facts(), "\n".join(turn["found"])
        user = prompts.fill(
            "chat_turn", facts=facts, found=prompts.quoted(found, MOST_LOOKS * MOST_CHARACTERS) if found else "nothing",
            before="\n".join(lines) or "nothing", said=prompts.quoted(turn["said"], MOST_CHARACTERS),
        )  # fmt: skip
        choice = self._chat.call_tool(prompts.read("chat"), user, tools)
        theirs = [turn["said"], *(line["text"] for line in turn["before"] if line["who"] == "they")]
        if not isinstance(choice, Answer):
            wanted = as_named(choice, theirs)
            cost = self._desk.weigh(command_of(wanted)) if isinstance(wanted, ACTS) else ""
            return {"choice": wanted.model_dump(mode="json"), "cost": cost}
        ours = [line["text"] for line in turn["before"] if line["who"] == "you"]  # held to records in its own turn
        held_to = checked(choice.text, [facts, found, *ours], self._desk.carried_out(), theirs)
        for reason in held_to.left_out:
            writer({"kind": "left out", "text": reason})
        return self._over(turn, held_to.text or facts, writer)

    def look(self, turn: Turn, *, writer: StreamWriter) -> Turn:
        """What a look finds, for the next thought. One that cannot be done finds the reason."""
        command = command_of(_chosen(turn))
        if any(found.startswith(f"{command}:\n") for found in turn["found"]):
            return {"found": [*turn["found"], f"{command}:\nasked before; answer now"], "choice": None}
        writer({"kind": "command", "text": command})
        try:
            text = self._desk.perform(command)
        except NesyLoraError as error:
            text = str(error)
        return {"found": [*turn["found"], f"{command}:\n{text[:MOST_CHARACTERS]}"], "choice": None}

    def confirm(self, turn: Turn, *, writer: StreamWriter) -> Turn:
        """Ask before what is costly or final. A node of its own: an interrupted one runs again from its start.

        What it costs was weighed before: by the time of the answer the run may have changed, so that nothing would be
        asked any more, and the answer not be read.
        """
        choice = _chosen(turn)
        cost = turn.get("cost") or self._desk.weigh(command_of(choice))
        if not cost:
            return {}
        try:
            [decision] = Decisions.model_validate(interrupt(_request(choice, cost))).decisions
            if isinstance(decision, Edit):
                edited = decision.edited_action
                chosen = TOOL.validate_python({"action": edited.name, **edited.args})
                return {"choice": chosen.model_dump(mode="json"), "cost": ""}
        except ValidationError as error:
            return self._over(
                turn, f"That answer cannot be read, and nothing was done: {error.errors()[0]['msg']}", writer
            )
        if isinstance(decision, Reject):
            return self._over(turn, "Nothing was done.", writer)
        return {}

    def act(self, turn: Turn, *, writer: StreamWriter) -> Turn:
        """Do it, if it still is what was asked about. What the command answers is the answer."""
        command, asked = command_of(_chosen(turn)), turn.get("cost")
        if asked and (now := self._desk.weigh(command)) != asked:
            change = f"What would be done now: {now}" if now else "The run has gone on meanwhile."
            return self._over(turn, f"Nothing was done, since that has changed. {change}", writer)
        writer({"kind": "command", "text": command})
        try:
            done = self._desk.perform(command)
        except NesyLoraError as error:
            return self._over(turn, str(error), writer)
        return self._over(turn, done or f"Done: {command}", writer, shown=bool(done))

    def _over(self, turn: Turn, answer: str, writer: StreamWriter, shown: bool = False) -> Turn:
        """The end of a turn. `shown`: the user has seen it already."""
        if not shown:
            writer({"kind": "answer", "text": answer})
        lines: list[Said] = [
            *turn["before"],
            {"who": "they", "text": turn["said"]},
            {"who": "you", "text": answer[:400]},
        ]
        return {"answer": answer, "before": lines[-MOST_LINES:], "choice": None}


def _graph(agent: ChatAgent, saver: Checkpoints) -> Any:
    graph: Any = StateGraph(Turn)  # whose overloads do not take a method that also wants the writer
    for node in (agent.think, agent.look, agent.confirm, agent.act):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", _after_thought, ["look", "confirm", END])
    graph.add_edge("look", "think")
    graph.add_conditional_edges("confirm", lambda turn: "act" if turn["choice"] else END, ["act", END])
    graph.add_edge("act", END)
    return graph.compile(checkpointer=saver)


def _after_thought(turn: Turn) -> str:
    choice = turn["choice"]
    if choice is None:
        return END
    return "look" if isinstance(_chosen(turn), LOOKS) else "confirm"


def _chosen(turn: Turn) -> Any:
    return TOOL.validate_python(turn["choice"])


def _request(choice: Any, cost: str) -> dict[str, Any]:
    """The question as an interrupt's value: plain JSON, as LangChain's front ends read it."""
    args = choice.model_dump(mode="json", exclude={"action"})
    request = ActionRequest(name=choice.action, args=args, description=cost)
    review = ReviewConfig(action_name=choice.action)
    return {
        "action_requests": [request.model_dump(mode="json")],
        "review_configs": [review.model_dump(mode="json")],
    }


@contextmanager
def chat_agent(folder: RunFolder, chat: Chat, desk: Desk) -> Iterator[ChatAgent]:
    """The agent of a run, with its thread in the run folder.

    Raises:
        Busy: another process talks with an LLM about this run.
    """
    with (
        held(folder.path / "chat", f"The conversation about {folder.name}"),
        closing(Checkpoints(folder.path / "chat.sqlite", lambda _: None)) as saver,
    ):
        yield ChatAgent(chat, desk, saver, folder.name)
