"""The prompts of all runs with what they earned, found again by the meaning of their task. The only Chroma import.

Chroma is an index over the ledgers: what is lost here can be rebuilt from them.
"""

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import NesyLoraError
from agent.records import Prompt, Record
from memory.lock import held

if TYPE_CHECKING:
    from chromadb import Collection, Metadata, Where
    from chromadb.api.client import Client
    from chromadb.api.collection_configuration import CreateCollectionConfiguration

Embed = Callable[[Sequence[str]], list[list[float]]]
NEAREST = 60  # entries that fit, on near tasks, among which the best are chosen
WINDOW = 300  # entries of any kind that are looked through for them, before Chroma has to filter
BATCH = 100


class Entry(Record):
    """One prompt that a run tried.

    `profile` says what the task is: the wanted form and sample questions. `kept`: the gate kept it, without an adapter.
    """

    prompt: Prompt
    task: str
    profile: str
    model: str
    reward: float
    gain: float
    kept: bool
    round: int
    run: str

    @property
    def key(self) -> str:
        """A prompt stands once per run, however often it is remembered."""
        return f"{self.run}/{self.prompt.id}"

    @property
    def meaning(self) -> str:
        """The text that is embedded."""
        return f"{self.profile}\n{self.prompt.system}".strip()


class Recalled(Record):
    """A remembered entry and the cosine similarity of its meaning to what was asked, in [-1, 1]."""

    entry: Entry
    similarity: float

    @property
    def rank(self) -> tuple[float, float, float]:
        return self.entry.reward, self.entry.gain, self.similarity


class PromptMemory:
    """The memory while it is open: `with PromptMemory.open(folder, embed) as memory`."""

    def __init__(self, folder: Path, embed: Embed, collection: "Collection") -> None:
        self.folder = folder
        self._embed = embed
        self._collection = collection

    @classmethod
    @contextmanager
    def open(cls, folder: Path, embed: Embed, wait: float = 0) -> Iterator["PromptMemory"]:
        """The memory in `folder`, for this process alone. A folder that Chroma can no longer read is moved aside.

        Args:
            embed: texts to vectors of one fixed length.
            wait: seconds to wait for another process that has it open.

        Raises:
            Busy: another live process has it open; names the holder.
            NesyLoraError: Chroma cannot use the folder.
        """
        folder = folder.resolve()
        with held(folder, f"The prompt memory {folder}", wait):
            client, collection = _sound_collection(folder)
            try:
                yield cls(folder, embed, collection)
            finally:
                client.close()

    @property
    def rebuilt(self) -> bool:
        """Whether this memory takes the place of a corrupt one and has still to be filled by `rebuild`."""
        return _unfilled(self.folder).exists()

    @property
    def lacks_entries(self) -> bool:
        """Whether it is empty, or takes the place of a corrupt one: what the runs remember may be missing here."""
        return self.rebuilt or self.count() == 0

    def count(self) -> int:
        return self._collection.count()

    def remember(self, entry: Entry) -> None:
        """Adds the entry, or replaces the one of the same run and prompt. Raises NesyLoraError (disk full)."""
        self._upsert([entry])

    def recall(self, profile: str, *, model: str | None, limit: int, similarity: float) -> list[Recalled]:
        """The best kept prompts on near tasks, one per prompt: by reward, then gain, then similarity.

        Args:
            model: only prompts that were tried on this model; None: on any.
            similarity: least cosine similarity.
        """
        if limit < 1:
            return []
        best: dict[str, Recalled] = {}
        for found in sorted(self._fitting(profile, model, similarity), key=lambda found: found.rank, reverse=True):
            if found.similarity >= similarity:
                best.setdefault(found.entry.prompt.id, found)
        return list(best.values())[:limit]

    def search(self, text: str, limit: int = 10, where: "Where | None" = None) -> list[Recalled]:
        """The entries nearest in meaning, nearest first.

        Args:
            where: a Chroma filter over task, model, run, prompt (id), reward, gain, kept and round.
        """
        if limit < 1:
            return []
        return [_recalled(metadata, near) for metadata, near in self._nearest(self._embed([text])[0], limit, where)]

    def _fitting(self, profile: str, model: str | None, similarity: float) -> list[Recalled]:
        """The NEAREST kept entries of this model; fewer where no more are above the similarity."""
        vector = self._embed([profile])[0]
        seen = self._nearest(vector, WINDOW)
        fitting = [(row, near) for row, near in seen if row["kept"] and model in (None, row["model"])]
        all_near_seen = len(seen) == self.count() or bool(seen and seen[-1][1] < similarity)
        if len(fitting) < NEAREST and not all_near_seen:
            # Rare ones stand farther out. Not asked like this at first: Chroma goes through all entries to filter.
            kept: Where = {"kept": True}
            fitting = self._nearest(vector, NEAREST, kept if model is None else {"$and": [kept, {"model": model}]})
        return [_recalled(row, near) for row, near in fitting[:NEAREST]]

    def _nearest(
        self, vector: Sequence[float], limit: int, where: "Where | None" = None
    ) -> "list[tuple[Metadata, float]]":
        """The metadata of the nearest entries and their similarities, nearest first."""
        with _plainly(self.folder):
            found = self._collection.query(
                query_embeddings=vector, n_results=limit, where=where, include=["metadatas", "distances"]
            )
        metadatas, distances = found["metadatas"] or [[]], found["distances"] or [[]]
        return [(row, round(1 - distance, 6)) for row, distance in zip(metadatas[0], distances[0], strict=True)]

    def _upsert(self, entries: Sequence[Entry]) -> None:
        meanings = [entry.meaning for entry in entries]
        vectors: list[Sequence[float] | Sequence[int]] = [*self._embed(meanings)]
        with _plainly(self.folder):
            self._collection.upsert(
                ids=[entry.key for entry in entries],
                embeddings=vectors,
                metadatas=[_metadata(entry) for entry in entries],
                documents=meanings,
            )


def rebuild(memory: PromptMemory, entries: Iterable[Entry]) -> None:
    """Fills the memory from entries that the ledgers tell of; then it is no longer `rebuilt`."""
    latest = iter({entry.key: entry for entry in entries}.values())
    while batch := list(itertools.islice(latest, BATCH)):
        memory._upsert(batch)
    _unfilled(memory.folder).unlink(missing_ok=True)


def _recalled(metadata: "Metadata", similarity: float) -> Recalled:
    return Recalled(entry=Entry.model_validate_json(str(metadata["entry"])), similarity=similarity)


def _metadata(entry: Entry) -> dict[str, str | int | float | bool]:
    columns = entry.model_dump(include={"task", "model", "reward", "gain", "kept", "round", "run"})
    return {**columns, "prompt": entry.prompt.id, "entry": entry.model_dump_json()}


# --- the folder on disk ----------------------------------------------------------------------------


def _sound_collection(folder: Path) -> "tuple[Client, Collection]":
    # Before Chroma starts, which fails on such files in many ways.
    if not _is_sound(folder, whole=_doubted(folder).exists()):
        _set_aside(folder)
    try:
        opened = _searched(folder)
    except NesyLoraError:
        opened = _searched_again(folder)
    _doubted(folder).unlink(missing_ok=True)
    return opened


def _searched_again(folder: Path) -> "tuple[Client, Collection]":
    """After a failure: the same folder if it is sound and works now, else a fresh one."""
    if _is_sound(folder, whole=True):
        with suppress(NesyLoraError):
            return _searched(folder)
    _set_aside(folder)
    return _searched(folder)


def _searched(folder: Path) -> "tuple[Client, Collection]":
    """Opened, and the vector index searched once: it stands in files of its own. Raises NesyLoraError."""
    client, collection = _chroma(folder)
    try:
        with _plainly(folder):
            some = collection.get(limit=1, include=["embeddings"])["embeddings"]
            if some is not None and len(some):
                collection.query(query_embeddings=some[0], n_results=1)
    except NesyLoraError:
        client.close()
        raise
    return client, collection


def _chroma(folder: Path) -> "tuple[Client, Collection]":
    from chromadb.api.client import Client
    from chromadb.api.shared_system_client import SharedSystemClient
    from chromadb.config import Settings

    settings = Settings(
        is_persistent=True,
        persist_directory=str(folder),
        anonymized_telemetry=False,
        _env_file=None,  # else Chroma reads whatever .env the user's project has
    )
    cosine: CreateCollectionConfiguration = {"hnsw": {"space": "cosine"}}
    try:
        with _plainly(folder):
            client = Client(settings=settings)
            return client, client.get_or_create_collection("prompts", embedding_function=None, configuration=cosine)
    except NesyLoraError:
        SharedSystemClient.clear_system_cache()  # it would give the broken half to whoever opens the path next
        raise


def _is_sound(folder: Path, *, whole: bool) -> bool:
    """Whether the folder is new, or its database has a head and its full length, and, if `whole`, sound pages.

    The head is read at once; the pages take as long as the file is large.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return True
    file = folder / "chroma.sqlite3"
    if not file.exists() or file.stat().st_size == 0:
        return False
    try:
        with closing(sqlite3.connect(file)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return not whole or database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return False
        raise NesyLoraError(f"The prompt memory {folder} cannot be opened: {error}. Mend that, then resume.") from error


def _set_aside(folder: Path) -> None:
    # The mark comes first: a kill after it costs a rebuild too many, a kill before it nothing.
    _unfilled(folder).touch()
    folder.rename(folder.with_name(f"{folder.name}-corrupt-{time.strftime('%Y%m%d-%H%M%S')}"))


def _unfilled(folder: Path) -> Path:
    return Path(f"{folder}.unfilled")


def _doubted(folder: Path) -> Path:
    """Stands where Chroma failed: the next opening reads every page."""
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
        _doubted(folder).touch()
        raise NesyLoraError(
            f"The prompt memory {folder} cannot be used: {error}. Runs are not touched by this. "
            "Mend the cause, or move the folder away to begin a fresh memory."
        ) from error
