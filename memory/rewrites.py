"""Hard train questions in words that the model could answer, kept over all runs so that they are asked for once."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from agent.records.base import Record
from agent.records.edits import Rewrite
from agent.records.rounds import Remaking
from memory.chroma import Columns, Embed, Shelves, Where


class KeptRewrite(Rewrite):
    """A rewrite, and where it passed: the task's name, the model, the run."""

    task: str
    model: str
    run: str

    @property
    def key(self) -> str:
        """The same words, answer and prompt are kept once per run, however often they are remembered."""
        return self.id

    @property
    def meaning(self) -> str:
        """The text that is embedded."""
        return self.question

    @property
    def columns(self) -> Columns:
        """What a search may filter by."""
        return self.model_dump(include={"source", "prompt", "task", "model", "run"})


class RoundRewrites(Record):
    """What a round made of hard questions: the rewrites it kept, their numbers, and a remark if the LLM failed."""

    remaking: Remaking
    kept: tuple[KeptRewrite, ...] = ()
    remark: str = ""


class RewriteMemory:
    """The rewrites in an open Chroma folder, or on a server."""

    def __init__(self, chroma: Shelves, embed: Embed) -> None:
        self._shelf = chroma.shelf("rewrites", embed)

    def count(self) -> int:
        return self._shelf.count()

    def remember(self, *rewrites: KeptRewrite) -> None:
        """Adds those that are not here yet. Raises NesyLoraError (disk full)."""
        self._shelf.put(rewrites)

    def lacking(self, rewrites: Sequence[KeptRewrite]) -> list[KeptRewrite]:
        """Those that are not here."""
        return self._shelf.lacking(rewrites)

    def recall(self, sources: Sequence[str], *, model: str | None, task: str | None) -> list[KeptRewrite]:
        """For each of these source rows that has one, the question that was kept most often, in the order given.

        Args:
            sources: as `memory.remake.source_of` makes them.
            model, task: only what passed there; None: anywhere.
        """
        if not sources:
            return []
        mine: Where = {"source": {"$in": list(sources)}}
        rest = [{column: value} for column, value in {"model": model, "task": task}.items() if value is not None]
        found = defaultdict[str, list[KeptRewrite]](list)
        for row in self._shelf.fitting({"$and": [mine, *rest]} if rest else mine):
            rewrite = KeptRewrite.model_validate_json(row["entry"])
            found[rewrite.source].append(rewrite)
        best = []
        for source in dict.fromkeys(sources):
            if rewrites := found.get(source):
                times = Counter(rewrite.question for rewrite in rewrites)
                # The id decides between equals, so that the order of the memory does not matter.
                best.append(min(rewrites, key=lambda rewrite: (-times[rewrite.question], rewrite.id)))
        return best
