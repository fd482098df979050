"""From chat messages, as OpenAI's files have them, to what is asked, what is answered and what was said before."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from agent.records.examples import Turn
from eval.tasks.cells import RowError, cell_text

Role = Literal["system", "user", "assistant", "tool"]
ROLES: dict[object, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
    "function": "tool",
}  # fmt: skip


class Chat(NamedTuple):
    """`turns` come before the question. `tools`: some of them are calls of tools or their results, as text."""

    system: str
    turns: tuple[Turn, ...]
    question: str
    answer: str
    tools: bool


class Message(NamedTuple):
    """`number` is its place in the row, from 1; `learned`: not of weight 0; `calls`: it calls tools."""

    number: int
    role: Role
    text: str
    learned: bool
    calls: bool


def read_chat(messages: object, column: str) -> Chat:
    """The conversation up to the last turn of the assistant that is to be learned, which is the answer.

    A call of a tool becomes its JSON, and a tool's result a turn of the user: many chat templates know neither.

    Raises:
        RowError: the messages are not an optional system message and then user and assistant in alternation; or no turn
            of the assistant is to be learned.
    """
    if not isinstance(messages, list) or not messages:
        raise RowError(f"'{column}' must be a list of turns such as {{role: user, content: ...}}")
    read = [_message(message, number) for number, message in enumerate(messages, start=1)]
    system = read.pop(0).text if read[0].role == "system" else ""
    turns = _results_joined(read)
    _check_order(turns)
    *before, question, answer = _to_the_answer(turns)
    earlier = tuple(Turn(role=_side(message), content=message.text) for message in before)
    tools = any(message.calls or message.role == "tool" for message in (*before, question))
    return Chat(system, earlier, question.text, answer.text, tools)


def _message(message: object, number: int) -> Message:
    if not isinstance(message, dict):
        raise RowError(f"turn {number} must have a role and a content")
    role = ROLES.get(message.get("role"))
    if role is None:
        raise RowError(f"turn {number} has the role {message.get('role')!r}; it must be {', '.join(map(str, ROLES))}")
    try:
        calls = _calls(message) if role == "assistant" else []
        text = "\n".join([*_content(message, role, bool(calls)), *calls])
    except RowError as fault:
        raise RowError(f"turn {number}: {fault}") from None
    return Message(number, role, text, message.get("weight") not in (0, "0"), bool(calls))


def _content(message: Mapping[str, object], role: Role, calls: bool) -> list[str]:
    """The content; a list of parts is joined. It may be empty only for the system, for a tool, and beside calls."""
    content = message.get("content")
    if isinstance(content, list):
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in content):
            raise RowError("'content' has parts that are not text")
        content = "\n".join(cell_text(part, "text") for part in content)
    if (content is None or content == "") and (calls or role in ("system", "tool")):
        return []
    return [cell_text({**message, "content": content} if "content" in message else message, "content")]


def _calls(message: Mapping[str, object]) -> list[str]:
    """The JSON of each call of a tool in a turn of the assistant."""
    calls = message.get("tool_calls") or [call for call in [message.get("function_call")] if call]
    if not isinstance(calls, list):
        raise RowError("'tool_calls' must be a list")
    return [_call(call) for call in calls]


def _call(call: object) -> str:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError("a call of a tool must have a name and arguments")
    arguments = function.get("arguments")
    with suppress(ValueError):  # what is not JSON stays as it is written
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False, default=str)


def _results_joined(messages: Sequence[Message]) -> list[Message]:
    """The results of several calls as one turn."""
    joined: list[Message] = []
    for message in messages:
        if joined and message.role == joined[-1].role == "tool":
            joined[-1] = joined[-1]._replace(text=f"{joined[-1].text}\n{message.text}")
        else:
            joined.append(message)
    return joined


def _check_order(messages: Sequence[Message]) -> None:
    for place, message in enumerate(messages):
        if message.role == "system":
            raise RowError(f"turn {message.number} is a system message; only the first one may be")
        if _side(message) != ("assistant" if place % 2 else "user"):
            raise RowError(
                f"turn {message.number} is the {message.role}'s, but user and assistant must alternate, the user first"
            )
    if not messages or _side(messages[-1]) == "user":
        last = messages[-1].role if messages else "system"
        raise RowError(f"the last turn is the {last}'s; it must be the assistant's, which is the answer")


def _to_the_answer(messages: Sequence[Message]) -> list[Message]:
    """The messages without the last ones that are not to be learned."""
    left = list(messages)
    while left and not left[-1].learned:
        del left[-2:]
    if not left:
        raise RowError("every turn of the assistant has `weight: 0`, so that none is there to be learned")
    if left[-1].calls:
        raise RowError("the answer is a call of a tool; it must be something that the assistant says")
    return left


def _side(message: Message) -> Literal["user", "assistant"]:
    return "assistant" if message.role == "assistant" else "user"
