"""Hard train questions in words that the model could answer, kept over all runs so that they are asked for once."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from agent.records.base import Record
from agent.records.edits import Rewrite
from agent.records.rounds import Remaking
from memory.chroma import ChromaFolder, Columns, Embed, Where


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
    """The rewrites in an open Chroma folder."""

    def __init__(self, chroma: ChromaFolder, embed: Embed) -> None:
        self._shelf = chroma.shelf("rewrites", embed)

    def count(self) -> int:
        return self._shelf.count()

    def remember(self, *rewrites: KeptRewrite) -> None:
        """Adds those that are not here yet. Raises NesyLoraError (disk full)."""
        self._shelf.put(rewrites)

    def recall(self, sources: Sequence[str], *, model: str | None, task: str | None) -> list[KeptRewrite]:
        """For each of these source rows that has one, the question that was kept most often, in the order given.

        Args:
            sources: as `memory.remake.source_of` makes them.
            model, task: only what passed there; None: anywhere.
        """
        found = defaultdict[str, list[KeptRewrite]](list)
        if sources:
            for row in self._shelf.fitting(_filter(sources, model, task)):
                rewrite = KeptRewrite.model_validate_json(row["entry"])
                found[rewrite.source].append(rewrite)
        return [_most_often_kept(found[source]) for source in dict.fromkeys(sources) if source in found]


def _filter(sources: Sequence[str], model: str | None, task: str | None) -> Where:
    wanted = {"model": model, "task": task}
    rest = [{column: value} for column, value in wanted.items() if value is not None]
    mine: Where = {"source": {"$in": list(sources)}}
    return {"$and": [mine, *rest]} if rest else mine


def _most_often_kept(rewrites: Sequence[KeptRewrite]) -> KeptRewrite:
    """One whose question occurs most often; the same one, whatever the order."""
    times = Counter(rewrite.question for rewrite in rewrites)
    return min(rewrites, key=lambda rewrite: (-times[rewrite.question], rewrite.id))
