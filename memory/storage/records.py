"""Records read from files, with the file named where they cannot be."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.base import Record

R = TypeVar("R", bound=Record)


def read_record(kind: type[R], path: Path) -> R:
    """The record in a JSON file. Raises BadInput: there is no such file, or it holds something else."""
    try:
        return parse_record(kind, path.read_bytes(), str(path))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist: this run has no such {kind.__name__.lower()}.") from None


def parse_record(kind: type[R], text: bytes, place: str) -> R:
    """The record in a JSON text. Raises BadInput, which names the `place` it is from."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise BadInput(f"{place} cannot be read: {error}. Put it back from a copy.") from error
