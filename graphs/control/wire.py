"""Calls of `Steering` as lines of JSON: a request and its answer, one of each a connection."""

import json
import sqlite3
from collections.abc import Mapping
from inspect import signature
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.errors import BadInput, Busy, NesyLoraError
from agent.records.actions import Action
from agent.records.base import Record
from agent.records.looks import Finding, Look
from graphs.control.steering import RunStatus, Steering

CALLS = ("status", "answer", "act", "go_on", "pause", "cancel_step", "extend", "share", "finish", "leave", "look")
KINDS: dict[str, type[NesyLoraError]] = {kind.__name__: kind for kind in (NesyLoraError, BadInput, Busy)}
UNEXPECTED = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError,
              TypeError, ValueError, sqlite3.Error)  # fmt: skip
MOST = 4_000_000  # bytes of a line
ACTION: TypeAdapter[Action] = TypeAdapter(Action)
LOOK: TypeAdapter[Look] = TypeAdapter(Look)
FINDING: TypeAdapter[Finding] = TypeAdapter(Finding)


def request(call: str, arguments: Mapping[str, object]) -> bytes:
    """The line that asks for a call. Actions and looks go as the JSON of what was named in them."""
    plain = {name: _plain(value) for name, value in arguments.items()}
    return json.dumps({"call": call, "arguments": plain}).encode() + b"\n"


def _plain(value: object) -> object:
    if not isinstance(value, Record):
        return value
    return value.model_dump(mode="json", include=value.model_fields_set | {"action"})


def answered(line: bytes, steering: Steering) -> bytes:
    """The line that answers a request, once it is done."""
    try:
        asked = json.loads(line)
        call, arguments = str(asked["call"]), dict(asked["arguments"])
        if call not in CALLS:
            return _fault("BadInput", f"there is no call {call!r}; there are {', '.join(CALLS)}")
        arguments = _read(call, arguments)
        signature(getattr(steering, call)).bind(**arguments)
    except (ValueError, KeyError, TypeError) as error:  # ValidationError is a ValueError
        return _fault("BadInput", f"the request cannot be read: {error}")
    try:
        result = getattr(steering, call)(**arguments)
        return json.dumps({"result": result.model_dump(mode="json")}).encode() + b"\n"
    except NesyLoraError as error:
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in KINDS)
        return _fault(kind, str(error))
    except UNEXPECTED as error:  # else whoever asked would take this process for dead
        return _fault("NesyLoraError", f"{call} has failed in the process of the run: {type(error).__name__}: {error}")


def result(line: bytes, call: str) -> RunStatus | Finding:
    """What a call returned.

    Raises:
        NesyLoraError: what the call raised.
    """
    try:
        answer = json.loads(line)
        if "fault" in answer:
            raise KINDS.get(answer["kind"], NesyLoraError)(answer["fault"])
        if call == "look":
            return FINDING.validate_python(answer["result"])
        return RunStatus.model_validate(answer["result"])
    except (ValidationError, ValueError, KeyError) as error:
        raise NesyLoraError(
            f"The process that works on the run answers in a form that is not known here ({error}). It is perhaps of "
            "another version of NeSyLoRA: use that one."
        ) from error


def _read(call: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with their records."""
    if call == "act":
        return {"action": ACTION.validate_python(arguments["action"])}
    if call == "look":
        return {"look": LOOK.validate_python(arguments["look"])}
    return arguments


def _fault(kind: str, message: str) -> bytes:
    return json.dumps({"fault": message, "kind": kind}).encode() + b"\n"
