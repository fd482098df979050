"""The prompts of all runs with their rewards, found by the meaning of their task."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.records.base import Record
from agent.records.examples import Prompt
from memory.chroma import ChromaFolder, Columns, Embed, Shelves, Where
from memory.rewrites import KeptRewrite, RewriteMemory

NEAREST = 60  # entries that fit, on near tasks, among which the best are chosen
WINDOW = 300  # entries of any kind that a filtered search looks through, before Chroma has to filter


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
        """A prompt is kept once per run, however often it is remembered."""
        return f"{self.run}/{self.prompt.id}"

    @property
    def meaning(self) -> str:
        """The text that is embedded."""
        return f"{self.profile}\n{self.prompt.system}".strip()

    @property
    def columns(self) -> Columns:
        """What a search may filter by."""
        columns = self.model_dump(include={"task", "model", "reward", "gain", "kept", "round", "run"})
        return {**columns, "prompt": self.prompt.id}


class Recalled(Record):
    """A remembered entry, and the cosine similarity of its meaning to the text that was searched for, in [-1, 1]."""

    entry: Entry
    similarity: float

    @property
    def rank(self) -> tuple[float, float, float]:
        return self.entry.reward, self.entry.gain, self.similarity


class PromptMemory:
    """The memory while it is open: `with PromptMemory.open(folder, embed) as memory`.

    `rewrites` are the rewritten questions in the same folder.
    """

    def __init__(self, chroma: Shelves, embed: Embed) -> None:
        self.chroma = chroma
        self.rewrites = RewriteMemory(chroma, embed)
        self._shelf = chroma.shelf("prompts", embed)

    @classmethod
    @contextmanager
    def open(cls, folder: Path, embed: Embed, wait: float = 0, server: str = "") -> Iterator["PromptMemory"]:
        """The memory in `folder`, for this process alone; see `ChromaFolder.open` for what it raises.

        Args:
            embed: texts to vectors of one fixed length.
            wait: seconds to wait for another process that has it open.
            server: address of a Chroma server that is taken in place of the folder, by any number of processes at once.
        """
        if server:
            from memory.shared.chroma_server import ChromaServer

            with ChromaServer.open(server, folder.parent) as shared:
                yield cls(shared, embed)
            return
        with ChromaFolder.open(folder, wait) as chroma:
            yield cls(chroma, embed)

    @property
    def rebuilt(self) -> bool:
        """Whether this memory replaces a corrupt one and still has to be filled by `rebuild`."""
        return self.chroma.rebuilt

    @property
    def lacks_entries(self) -> bool:
        """Whether it is empty, or replaces a corrupt one: entries that the run folders keep may be missing."""
        return self.rebuilt or self.count() == 0

    def count(self) -> int:
        return self._shelf.count()

    def remember(self, *entries: Entry) -> None:
        """Adds entries; each replaces an entry of the same run and prompt. Raises NesyLoraError (disk full)."""
        self._shelf.put(entries)

    def lacking(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that are not here."""
        return self._shelf.lacking(entries)

    def recall(self, profile: str, *, model: str | None, limit: int, similarity: float) -> list[Recalled]:
        """The best kept prompts on near tasks, one per prompt: by reward, then gain, then similarity.

        Args:
            model: only prompts that were tried on this model; None: on any.
            similarity: least cosine similarity, in [-1, 1].
        """
        if limit < 1:
            return []
        best: dict[str, Recalled] = {}
        near = self.search(profile, NEAREST, model=model, kept=True, similarity=similarity)
        for recalled in sorted(near, key=lambda recalled: recalled.rank, reverse=True):
            best.setdefault(recalled.entry.prompt.id, recalled)
        return list(best.values())[:limit]

    def search(
        self, text: str, limit: int = 10, *, model: str | None = None, kept: bool = False, similarity: float = -1.0
    ) -> list[Recalled]:
        """The entries nearest in meaning to a text, nearest first.

        Args:
            model: only prompts that were tried on this model; None: on any.
            kept: only prompts that the gate kept.
            similarity: least cosine similarity, in [-1, 1].
        """
        if limit < 1:
            return []
        vector = self._shelf.embedded(text)
        wanted: list[Where] = [{"kept": True}] if kept else []
        wanted += [{"model": model}] if model is not None else []
        found = self._shelf.nearest(vector, max(limit, WINDOW) if wanted else limit)
        fitting = [(row, near) for row, near in found if all(row.items() >= where.items() for where in wanted)]
        all_near_found = len(found) == self.count() or bool(found and found[-1][1] < similarity)
        if wanted and len(fitting) < limit and not all_near_found:
            # Rare ones are farther away. This is slow, so it comes second: to filter, Chroma reads all entries.
            fitting = self._shelf.nearest(vector, limit, {"$and": wanted} if len(wanted) > 1 else wanted[0])
        return [
            Recalled(entry=Entry.model_validate_json(row["entry"]), similarity=near)
            for row, near in fitting[:limit]
            if near >= similarity
        ]


def rebuild(memory: PromptMemory, entries: Iterable[Entry], rewrites: Iterable[KeptRewrite] = ()) -> None:
    """Fills the memory from what the run folders keep. Afterwards it is no longer `rebuilt`.

    Raises:
        NesyLoraError: Chroma fails, or the disk is full.
    """
    with memory.chroma.filling():
        memory.rewrites.remember(*rewrites)
        memory.remember(*entries)
