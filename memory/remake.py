"""Data remaking: refined prompts turned into training rows (paper, section on data remaking)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.protocols import Scorers
from agent.records import Example, Prompt, Record, Rows, Turn

if TYPE_CHECKING:
    from datasets import Dataset


class TrainingRow(Record):
    """What the trainer learns from. `source` names the example, `prompt` the one it was remade with, if any."""

    question: str
    answer: str
    source: str
    prompt: str | None = None
    turns: tuple[Turn, ...] = ()

    @property
    def text(self) -> tuple[object, ...]:
        """All that is trained on: rows with the same text are duplicates."""
        return self.turns, self.question, self.answer


@dataclass(frozen=True)
class Remade:
    """The refined rows, and where the others went: given = rows + refused + duplicates.

    `given` counts the examples that are not demonstrations, `refused` those whose shown answer does not pass.
    """

    rows: "Dataset"
    given: int
    refused: int
    duplicates: int


def remake(train: Sequence[Example], prompt: Prompt, scorers: Scorers) -> Remade:
    """Every train example that `prompt` does not demonstrate, its reference in the wanted form, where that passes.

    Raises:
        ValueError: an example is not of the train split.
    """
    _require_train(train)
    shown = {demo.question for demo in prompt.demos}
    given = [example for example in train if example.question not in shown]
    passed = [row for example in given if (row := _refined(example, prompt, scorers)) is not None]
    rows = list(_distinct(passed))
    return Remade(table(rows), len(given), len(given) - len(passed), len(passed) - len(rows))


def select(train: Sequence[Example], remade: Remade | None, rows: Rows) -> list[TrainingRow]:
    """The rows to train on: as given, refined, or both (a refined row that equals an original stands once).

    Raises:
        ValueError: an example is not of the train split, or refined rows are asked for and none were made.
    """
    _require_train(train)
    original = [
        TrainingRow(question=example.question, answer=example.answer, source=example.name, turns=example.turns)
        for example in train
    ]
    if rows == "original":
        return original
    if remade is None:
        raise ValueError(f"rows={rows!r} needs the rows that remake() returns")
    refined = [TrainingRow.model_validate(row) for row in remade.rows]
    return refined if rows == "refined" else original + list(_distinct(refined, original))


def table(rows: Sequence[TrainingRow]) -> "Dataset":
    """Columns question, answer, source, prompt (may be null) and turns (a list of role and content)."""
    from datasets import Dataset, Features, List, Value

    text = Value("string")
    turns = List({"role": text, "content": text})
    features = Features({"question": text, "answer": text, "source": text, "prompt": text, "turns": turns})
    dumped = [row.model_dump(mode="json") for row in rows]
    # By column: from_list() cannot make an empty table.
    return Dataset.from_dict({name: [row[name] for row in dumped] for name in features}, features=features)


def _refined(example: Example, prompt: Prompt, scorers: Scorers) -> TrainingRow | None:
    answer = scorers.show(example.answer)
    if not scorers.passes(answer, example):
        return None
    return TrainingRow(
        question=example.question, answer=answer, source=example.name, prompt=prompt.id, turns=example.turns
    )


def _distinct(rows: Iterable[TrainingRow], but: Iterable[TrainingRow] = ()) -> Iterator[TrainingRow]:
    seen = {row.text for row in but}
    for row in rows:
        if row.text not in seen:
            seen.add(row.text)
            yield row


def _require_train(examples: Sequence[Example]) -> None:
    for example in examples:
        if not example.name.startswith("train:"):
            raise ValueError(f"{example.name} is not a train row: only train rows may be trained on")
