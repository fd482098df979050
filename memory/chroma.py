"""The Chroma folder: opened by one process at a time, set aside if it is corrupt. The only Chroma import.

Chroma is an index over the run folders: what is lost here can be rebuilt from them.
"""

import itertools
import math
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent.errors import DiskFull, NesyLoraError, is_disk_full
from memory.storage.database import aside, is_full, is_little_left, is_sound, room_for
from memory.storage.lock import held

if TYPE_CHECKING:
    from chromadb import Collection
    from chromadb.api.client import Client
    from chromadb.api.collection_configuration import CreateCollectionConfiguration

Embed = Callable[[Sequence[str]], list[list[float]]]
Where = dict[str, Any]  # Chroma's filter over the columns
Columns = dict[str, str | int | float | bool]
T = TypeVar("T")
E = TypeVar("E", bound="Shelved")
Row = Mapping[str, Any]  # an entry's columns, and the whole entry as JSON under `entry`
SHELVES = ("prompts", "rewrites")
BATCH = 100
ASKED = 1000  # ids in one request
COSINE: "CreateCollectionConfiguration" = {"hnsw": {"space": "cosine"}}
SHIFT, SHIFTED = 0.003, 8  # length and dimensions of the step that separates entries of equal meaning


class Shelved(Protocol):
    """What a shelf takes: `meaning` is embedded, `columns` are what `where` filters by."""

    @property
    def key(self) -> str: ...

    @property
    def meaning(self) -> str: ...

    @property
    def columns(self) -> Columns: ...

    def model_dump_json(self) -> str: ...


class Calls(Protocol):
    """Calls Chroma, and raises NesyLoraError where it fails."""

    def __call__(self, do: Callable[[], T], /) -> T: ...


class Shelf:
    """One collection of the open folder, or of a server. Everything here raises NesyLoraError where Chroma fails.

    Args:
        call: calls Chroma.
        prefix: of the ids of entries that are put here.
    """

    def __init__(self, collection: "Collection", embed: Embed, call: Calls, prefix: str = "") -> None:
        self._collection = collection
        self._embed = embed
        self._call = call
        self._prefix = prefix

    def count(self) -> int:
        return self._call(self._collection.count)

    def put(self, entries: Iterable[Shelved]) -> None:
        """Adds the entries; an entry replaces an earlier one with the same key."""
        latest = iter({entry.key: entry for entry in entries}.values())
        while batch := list(itertools.islice(latest, BATCH)):
            self._upsert(batch)

    def lacking(self, entries: Iterable[E]) -> list[E]:
        """Those whose keys are not here."""
        asked, found = list(entries), list[E]()
        while some := asked[:ASKED]:
            asked = asked[ASKED:]
            known = set(self._known([f"{self._prefix}{entry.key}" for entry in some]))
            found += [entry for entry in some if f"{self._prefix}{entry.key}" not in known]
        return found

    def _known(self, ids: list[str]) -> list[str]:
        return self._call(lambda: self._collection.get(ids=ids, include=[]))["ids"]

    def embedded(self, text: str) -> list[float]:
        """The vector of a text, [D], of length 1."""
        return self._embed([text])[0]

    def nearest(self, vector: Sequence[float], limit: int, where: Where | None = None) -> list[tuple[Row, float]]:
        """The entries nearest to a vector and their cosine similarities in [-1, 1], nearest first.

        The index is approximate and may miss some. Use `fitting` for what must be found.

        Args:
            vector: [D] of length 1, as the shelf's `embed` makes them.
            where: Chroma's filter over the columns. With it Chroma reads the columns of all entries, which is slow.
        """
        found = self._call(
            lambda: self._collection.query(
                query_embeddings=vector, n_results=limit, where=where, include=["metadatas", "distances"]
            )
        )
        metadatas, distances = found["metadatas"] or [[]], found["distances"] or [[]]
        return [(row, round(1 - distance, 4)) for row, distance in zip(metadatas[0], distances[0], strict=True)]

    def fitting(self, where: Where) -> list[Row]:
        """All entries that fit the filter, in no order."""
        found = self._call(lambda: self._collection.get(where=where, include=["metadatas"]))
        return list(found["metadatas"] or [])

    def _upsert(self, entries: Sequence[Shelved]) -> None:
        meanings = [entry.meaning for entry in entries]
        vectors: list[Sequence[float] | Sequence[int]] = [
            _shifted(vector, entry.key) for vector, entry in zip(self._embed(meanings), entries, strict=True)
        ]
        self._call(
            lambda: self._collection.upsert(
                ids=[f"{self._prefix}{entry.key}" for entry in entries],
                embeddings=vectors,
                metadatas=[{**entry.columns, "entry": entry.model_dump_json()} for entry in entries],
                documents=meanings,
            )
        )


def _shifted(vector: Sequence[float], key: str) -> list[float]:
    """The vector moved by a small step in a direction that depends on the key; similarities change by some 1e-4.

    Of many equal vectors the index loses up to half; of many that differ in all dimensions, a few.
    """
    chance, most = random.Random(key), SHIFT * math.sqrt(3 / SHIFTED)
    return [*(number + chance.uniform(-most, most) for number in vector[:SHIFTED]), *vector[SHIFTED:]]


class Shelves(Protocol):
    """The open folder, or a server."""

    def shelf(self, name: str, embed: Embed) -> Shelf:
        """One of SHELVES. `embed`: texts to vectors of one fixed length."""
        ...

    @property
    def rebuilt(self) -> bool:
        """Whether it has not got what the run folders keep, and has to be filled."""
        ...

    def filling(self) -> AbstractContextManager[None]:
        """Around the filling of all shelves: one that is cut off counts as not begun."""
        ...


class ChromaFolder:
    """The folder while it is open: `with ChromaFolder.open(folder) as chroma`. Satisfies `Shelves`."""

    def __init__(self, folder: Path, collections: "Mapping[str, Collection]") -> None:
        self.folder = folder
        self._collections = collections

    @classmethod
    @contextmanager
    def open(cls, folder: Path, wait: float = 0) -> Iterator["ChromaFolder"]:
        """The folder, for this process alone. One that Chroma can no longer read is moved aside.

        Args:
            wait: seconds to wait for another process that has it open.

        Raises:
            Busy: another live process has it open; names the holder.
            NesyLoraError: Chroma cannot use the folder.
        """
        folder = folder.resolve()
        with held(folder, f"The prompt memory {folder}", wait):
            client, collections = _sound_collections(folder)
            try:
                yield cls(folder, collections)
            finally:
                client.close()

    def shelf(self, name: str, embed: Embed) -> Shelf:
        """One of SHELVES. `embed`: texts to vectors of one fixed length."""

        def call(do: Callable[[], T]) -> T:
            with _plainly(self.folder):
                return do()

        return Shelf(self._collections[name], embed, call)

    @property
    def rebuilt(self) -> bool:
        """Whether this folder replaces a lost one and still has to be filled."""
        return _unfilled(self.folder).exists()

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Around the filling of all shelves: one that is cut off counts as not begun."""
        _unfilled(self.folder).touch()
        yield
        _unfilled(self.folder).unlink(missing_ok=True)


# --- the folder on disk ----------------------------------------------------------------------------


def _sound_collections(folder: Path) -> "tuple[Client, dict[str, Collection]]":
    # Before Chroma starts, which fails on such files in many ways.
    if not _is_sound(folder, whole=_doubted(folder).exists()):
        _set_aside(folder)
    opened = _searched_if_sound(folder)
    if opened is None and _is_sound(folder, whole=True):  # once more, in case it works now
        opened = _searched_if_sound(folder)
    if opened is None:
        _set_aside(folder)
        opened = _searched(folder)
    _doubted(folder).unlink(missing_ok=True)
    return opened


def _searched_if_sound(folder: Path) -> "tuple[Client, dict[str, Collection]] | None":
    """As `_searched`; None where Chroma fails. Raises DiskFull, by which a sound folder is no worse."""
    try:
        return _searched(folder)
    except DiskFull:
        raise
    except NesyLoraError:
        return None


def _searched(folder: Path) -> "tuple[Client, dict[str, Collection]]":
    """The open folder, after one search of each vector index, which has files of its own. Raises NesyLoraError."""
    client, collections = _chroma(folder)
    try:
        with _plainly(folder):
            for collection in collections.values():
                some = collection.get(limit=1, include=["embeddings"])["embeddings"]
                if some is not None and len(some):
                    collection.query(query_embeddings=some[0], n_results=1)
    except NesyLoraError:
        client.close()
        raise
    return client, collections


def _chroma(folder: Path) -> "tuple[Client, dict[str, Collection]]":
    from chromadb.api.client import Client
    from chromadb.api.shared_system_client import SharedSystemClient
    from chromadb.config import Settings

    settings = Settings(
        is_persistent=True,
        persist_directory=str(folder),
        anonymized_telemetry=False,
        _env_file=None,  # else Chroma reads whatever .env the user's project has
    )
    try:
        with _plainly(folder):
            client = Client(settings=settings)
            return client, {
                name: client.get_or_create_collection(name, embedding_function=None, configuration=COSINE)
                for name in SHELVES
            }
    except NesyLoraError:
        SharedSystemClient.clear_system_cache()  # it would hand the broken client to the next opening of this path
        raise


def _is_sound(folder: Path, *, whole: bool) -> bool:
    """Whether the folder is new, or its database is sound; see `memory.storage.database.is_sound`."""
    if not folder.exists() or not any(folder.iterdir()):
        return True
    file = folder / "chroma.sqlite3"
    if not file.exists() or file.stat().st_size == 0:
        return False
    try:
        return is_sound(file, whole=whole)
    except sqlite3.DatabaseError as error:
        if is_full(error, file):
            raise DiskFull(folder, room_for(file)) from error
        raise NesyLoraError(f"The prompt memory {folder} cannot be opened: {error}. Mend that, then resume.") from error


def _set_aside(folder: Path) -> None:
    # The mark comes first: a kill after it costs a rebuild too many, a kill before it nothing.
    _unfilled(folder).touch()
    folder.rename(aside(folder))


def _unfilled(folder: Path) -> Path:
    return Path(f"{folder}.unfilled")


def _doubted(folder: Path) -> Path:
    """This file exists where Chroma failed: the next opening reads every page."""
    return Path(f"{folder}.doubted")


@contextmanager
def _plainly(folder: Path) -> Iterator[None]:
    from chromadb.errors import ChromaError

    try:
        yield
    except BaseException as error:
        # A panic in Chroma's Rust is no Exception, and its class cannot be imported.
        if not isinstance(error, ChromaError) and type(error).__name__ != "PanicException":
            raise
        if is_disk_full(error) or ("disk I/O error" in str(error) and is_little_left(folder)):
            raise DiskFull(folder, room_for(folder / "chroma.sqlite3")) from error
        _doubted(folder).touch()
        raise NesyLoraError(
            f"The prompt memory {folder} cannot be used: {error}. Runs are not touched by this. "
            "Mend the cause, or move the folder away to begin a fresh memory."
        ) from error
