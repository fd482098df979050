"""Data remaking: train rows in the form that a refined prompt asks for (paper, section on data remaking)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from agent.protocols import Scorers
from agent.records.actions import Rows
from agent.records.base import Record, digest
from agent.records.edits import Rewrite
from agent.records.examples import Example, Prompt, Turn


class TrainingRow(Record):
    """What the trainer learns from. `source` names the example, `prompt` the one it was remade with, if any.

    `rewritten`: question and answer are those of a kept rewrite, and not the example's.
    """

    question: str
    answer: str
    source: str
    prompt: str | None = None
    turns: tuple[Turn, ...] = ()
    system: str = ""
    rewritten: bool = False

    @property
    def text(self) -> tuple[object, ...]:
        """All that is trained on: rows with the same text are duplicates."""
        return self.system, self.turns, self.question, self.answer

    @property
    def example(self) -> Example:
        """The row as an example, under its source's name."""
        return Example(
            name=self.source, question=self.question, answer=self.answer, turns=self.turns, system=self.system
        )


@dataclass(frozen=True)
class Remade:
    """The refined rows, and what became of the others: eligible = rows + refused + duplicates.

    `eligible` counts the examples that are not demonstrations and the rewrites of them, `refused` the examples whose
    answer does not get full marks in the wanted form, `rewritten` the rows that are rewrites.
    """

    rows: tuple[TrainingRow, ...]
    eligible: int
    refused: int
    duplicates: int
    rewritten: int


def source_of(example: Example) -> str:
    """The content hash of an example without its name: a rewrite is kept for the row, whatever its file or line."""
    parts = [example.question, example.answer, [turn.model_dump() for turn in example.turns]]
    return digest([*parts, example.system] if example.system else parts)


def remake(train: Sequence[Example], prompt: Prompt, scorers: Scorers, rewrites: Iterable[Rewrite] = ()) -> Remade:
    """Every train example that `prompt` does not demonstrate, its reference in the wanted form, where that gets full
    marks; and every rewrite of such an example, with the model's answer that got full marks.

    Args:
        rewrites: kept ones; those of other rows than these are left out.

    Raises:
        ValueError: an example is not of the train split.
    """
    _require_train(train)
    demonstrated = {demo.question for demo in prompt.demos}
    eligible = [example for example in train if example.question not in demonstrated]
    refined = [row for example in eligible if (row := _refined(example, prompt, scorers)) is not None]
    rewritten = [row for row in _rewritten(eligible, prompt, rewrites) if row.question not in demonstrated]
    rows = tuple(_distinct([*refined, *rewritten]))
    return Remade(
        rows=rows,
        eligible=len(eligible) + len(rewritten),
        refused=len(eligible) - len(refined),
        duplicates=len(refined) + len(rewritten) - len(rows),
        rewritten=sum(row.rewritten for row in rows),
    )


def select(train: Sequence[Example], remade: Remade | None, rows: Rows) -> list[TrainingRow]:
    """The rows to train on: as given, refined, or both (a refined row that equals an original counts once).

    Raises:
        ValueError: an example is not of the train split, or refined rows are asked for and none were made.
    """
    _require_train(train)
    original = [TrainingRow(source=example.name, **example.model_dump(exclude={"name"})) for example in train]
    if rows == "original":
        return original
    if remade is None:
        raise ValueError(f"rows={rows!r} needs the rows that remake() returns")
    return list(remade.rows) if rows == "refined" else original + list(_distinct(remade.rows, original))


def _refined(example: Example, prompt: Prompt, scorers: Scorers) -> TrainingRow | None:
    answer = scorers.show(example.answer)
    if not scorers.full_marks(answer, example):
        return None
    return TrainingRow(
        question=example.question, answer=answer, source=example.name, prompt=prompt.id, turns=example.turns,
        system=example.system,
    )  # fmt: skip


def _rewritten(eligible: Sequence[Example], prompt: Prompt, rewrites: Iterable[Rewrite]) -> Iterator[TrainingRow]:
    by_source = {source_of(example): example for example in eligible}
    for rewrite in rewrites:
        if example := by_source.get(rewrite.source):
            yield TrainingRow(
                question=rewrite.question, answer=rewrite.answer, source=example.name, prompt=prompt.id,
                turns=example.turns, system=example.system, rewritten=True,
            )  # fmt: skip


def _distinct(rows: Iterable[TrainingRow], known: Iterable[TrainingRow] = ()) -> Iterator[TrainingRow]:
    seen = {row.text for row in known}
    for row in rows:
        if row.text not in seen:
            seen.add(row.text)
            yield row


def _require_train(examples: Sequence[Example]) -> None:
    for example in examples:
        if not example.name.startswith("train:"):
            raise ValueError(f"{example.name} is not a train row: only train rows may be trained on")
