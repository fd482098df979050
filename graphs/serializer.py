"""How checkpoints are read: records that an earlier version kept in another module are found where they are now."""

from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.jsonplus import EXT_PYDANTIC_V2, JsonPlusSerializer

from agent.records.actions import Decision
from agent.records.examples import Candidate, Prompt
from agent.records.rounds import Outcome, Spend, SplitResult, Trial, Verdict
from agent.records.signal import Diagnosis, Signal

FORMER = ("agent.records", "agent.moves", "agent.rounds")
"""Modules that earlier versions had all records of a checkpoint in."""

RECORDS = (Candidate, Decision, Diagnosis, Outcome, Prompt, Signal, Spend, SplitResult, Trial, Verdict)
"""All that a state holds as a whole record; others are within these."""

HOMES = {record.__name__: record.__module__ for record in RECORDS}
KEYS = ormsgpack.OPT_NON_STR_KEYS


class RecordSerializer(JsonPlusSerializer):
    """LangGraph's serializer for our records only: LangGraph's own would import any class that a checkpoint names.

    A graph of a user's own that holds other classes adds them by `with_msgpack_allowlist`.
    """

    def __init__(self) -> None:
        super().__init__(allowed_msgpack_modules=RECORDS)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, value = data
        return super().loads_typed((kind, _with_present_names(value)) if kind == "msgpack" else data)


def _with_present_names(value: bytes) -> bytes:
    if not any(ormsgpack.packb(module) in value for module in FORMER):
        return value
    return ormsgpack.packb(ormsgpack.unpackb(value, ext_hook=_renamed, option=KEYS), option=KEYS)


def _renamed(code: int, data: bytes) -> ormsgpack.Ext:
    """An extension value as it stands, but a record of ours under the name of its present module."""
    if code != EXT_PYDANTIC_V2:
        return ormsgpack.Ext(code, data)
    module, name, *rest = ormsgpack.unpackb(data, ext_hook=_renamed, option=KEYS)
    module = HOMES.get(name, module) if module in FORMER else module
    return ormsgpack.Ext(code, ormsgpack.packb([module, name, *rest], option=KEYS))
