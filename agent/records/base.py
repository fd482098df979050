"""What all records have in common. Ids are hashes of the content they name."""

import hashlib
import json
import unicodedata
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

# The format of the records in ledgers and checkpoints. Raise it with every change after which this version cannot read
# older runs, or an older version cannot read new ones. 0: runs from before the format was counted.
FORMAT = 4


def digest(value: object) -> str:
    """Twelve hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folded(text: str) -> str:
    """The text as it compares: case, white space and ways to encode one letter folded."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


class Record(BaseModel):
    """Frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def id(self) -> str:
        """Content hash: equal records have equal ids, in every process.

        Not cached: `model_copy` would carry the old id into the changed copy.
        """
        return digest(self.model_dump(mode="json"))

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> NoReturn:  # type: ignore[override]
        """Never: LangGraph would build a record of another version half with it, without an error."""
        raise TypeError(f"a {cls.__name__} is made of values that were checked")
