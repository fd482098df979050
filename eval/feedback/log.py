"""The lines of a server's log, and of what was set aside of it for people to correct."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from agent.errors import BadInput
from agent.records.base import Record
from agent.records.examples import Example, Turn
from agent.records.served import ServedMessage, ServedRequest

CUT_OFF = {
    "length": "it was cut off: no tokens were left",
    "gone": "the client went away before its end",
    "slow": "the client read it too slowly to its end",
    "timeout": "it was not done in time",
    "failed": "it failed",
}
UNJUDGED = "nothing here judges it without a wanted answer"


class SetAside(Record):
    """An answer that was not good enough, or could not be judged. Whoever fills `wanted` in makes a row of it."""

    kind: Literal["aside"] = "aside"
    reason: str
    messages: tuple[ServedMessage, ...] = Field(description="the conversation up to the question")
    answer: str = Field(description="what the model said")
    wanted: str = Field("", description="what it should have said: for a person to fill in")
    request: str = Field("", description="its id in the log")


class Asked(NamedTuple):
    """A question as it was asked, and what was answered.

    `wanted` is empty where nobody has said it; `fault` says why the answer cannot be whole, if it cannot.
    """

    example: Example
    answer: str
    wanted: str
    fault: str
    request: str


class Log(NamedTuple):
    """The questions in order; and how many lines gave none, by the reason."""

    asked: tuple[Asked, ...]
    left_out: dict[str, int]


LINE: TypeAdapter[ServedRequest | SetAside] = TypeAdapter(
    Annotated[ServedRequest | SetAside, Field(discriminator="kind")]
)


def read_log(files: Sequence[Path], model: str | None = None, corrected: Path | None = None) -> Log:
    """All questions of logs of `nesylora serve`, and of files of what was set aside.

    Args:
        corrected: a file of what was set aside that will be written anew: no line of it is passed over.
        model: only what this model was asked, by the name that clients gave.

    Raises:
        BadInput: a file cannot be read or holds no such line; or several models were asked, and none is named;
            or a line of `corrected` cannot be used.
    """
    lines: list[ServedRequest | SetAside] = []
    left_out: dict[str, int] = {}
    for file in files:
        found, damaged = _lines(file)
        lines += found
        if damaged:
            left_out["a damaged line"] = left_out.get("a damaged line", 0) + damaged
    lines += _corrected(corrected) if corrected else []
    models = sorted({line.model for line in lines if isinstance(line, ServedRequest)})
    if model is None and len(models) > 1:
        raise BadInput(f"the log is of {len(models)} models ({', '.join(models)}): name one with --model")
    if model is not None and models and model not in models:
        raise BadInput(f"the log holds nothing of model {model!r}; it is of {', '.join(models)}")
    asked: list[Asked] = []
    for line in lines:
        if isinstance(line, ServedRequest) and model not in (None, line.model):
            reason = "of another model"
        elif (reason := _unusable(line)) == "":
            asked.append(_asked(line, len(asked) + 1))
            continue
        left_out[reason] = left_out.get(reason, 0) + 1
    return Log(tuple(asked), left_out)


def _lines(file: Path) -> tuple[list[ServedRequest | SetAside], int]:
    found, damaged = [], 0
    for line in filter(bytes.strip, _raw(file)):
        try:
            found.append(LINE.validate_json(line))
        except ValidationError:
            damaged += 1  # such as the last line, where a kill cut it off
    if damaged and not found:
        raise BadInput(f"{file} is no log of `nesylora serve --log`: none of its {damaged} lines is a served request")
    return found, damaged


def _corrected(file: Path) -> list[SetAside]:
    """A line that is passed over would be lost, with what a person wrote into it."""
    found = []
    for number, line in enumerate(_raw(file), 1):
        if not line.strip():
            continue
        try:
            aside = SetAside.model_validate_json(line)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise BadInput(f"{file}:{number}: {place or 'the line'}: {fault['msg']}; nothing was written") from error
        if reason := _unusable(aside):
            raise BadInput(f"{file}:{number}: {reason}; mend the line or take it out; nothing was written")
        found.append(aside)
    return found


def _raw(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().split(b"\n")
    except OSError as error:
        raise BadInput(f"the log {file} cannot be read: {error.strerror}") from error


def _unusable(line: ServedRequest | SetAside) -> str:
    """Why a line is no question that the task's prompt was put around; "" if it is one."""
    if isinstance(line, ServedRequest) and not line.messages:
        return "a raw text was continued"
    own = isinstance(line, ServedRequest) and line.own_prompt
    if own or any(message.role not in ("user", "assistant") for message in line.messages):
        return "it brought a prompt of its own"
    roles = [message.role for message in line.messages]
    if roles != [("user", "assistant")[place % 2] for place in range(len(roles))] or len(roles) % 2 == 0:
        return "its turns do not alternate up to a question"
    return "" if line.messages[-1].content.strip() else "an empty question"


def _asked(line: ServedRequest | SetAside, number: int) -> Asked:
    *before, question = line.messages
    turns = tuple(Turn(role=_side(message), content=message.content) for message in before)
    example = Example(name=f"log:{number}", question=question.content, answer="", turns=turns)
    if isinstance(line, SetAside):
        fault = "" if line.reason == UNJUDGED else line.reason  # a task may judge it by now
        wanted = line.wanted.strip()
    else:
        fault, wanted = _not_its_own(line), ""
    return Asked(example, line.answer, wanted, fault or ("" if line.answer.strip() else "it is empty"), line.request)


def _not_its_own(line: ServedRequest) -> str:
    """Why an answer is not what the model itself says to the question, from beginning to end; "" if it is."""
    if fault := CUT_OFF.get(line.finish, ""):
        return fault
    if line.stopped_at:
        return "it was cut off by a stop text of the client"  # not quoted: nothing takes secrets out of reasons
    if line.temperature:
        return f"it was drawn at temperature {line.temperature:g}: the model may say something else"
    return ""


def _side(message: ServedMessage) -> Literal["user", "assistant"]:
    return "assistant" if message.role == "assistant" else "user"
