"""shared.json beside the runs: the name that their folder goes by on servers, and which servers have its entries."""

import uuid
from pathlib import Path

from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.base import Record
from memory.storage.disk import write_atomically
from memory.storage.lock import held

WAIT = 60.0  # seconds; another run has the file for a moment


class Origin(Record):
    """`chroma` is the server that was used last, `collections` the ids of its collections that have all entries."""

    name: str
    chroma: str = ""
    collections: tuple[str, ...] = ()


def origin_of(root: Path) -> Origin:
    """Of the runs in this folder; made once. Raises BadInput: the file is damaged."""
    file = _file(root)
    if not file.is_file():
        root.mkdir(parents=True, exist_ok=True)
        with held(file, f"The file {file}", WAIT):
            if not file.is_file():
                write_atomically(file, Origin(name=uuid.uuid4().hex[:12]).model_dump_json(indent=2))
    try:
        return Origin.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{file} cannot be read. Remove it: entries on servers are then written once more.") from error


def note_filled(root: Path, chroma: str, collections: tuple[str, ...]) -> None:
    """A server has all entries of these runs."""
    with held(_file(root), f"The file {_file(root)}", WAIT):
        later = origin_of(root).model_copy(update={"chroma": chroma, "collections": collections})
        write_atomically(_file(root), later.model_dump_json(indent=2))


def server_of(root: Path) -> str:
    """The Chroma server that these runs used last; empty: none."""
    return origin_of(root).chroma if _file(root).is_file() else ""


def _file(root: Path) -> Path:
    return root / "shared.json"
