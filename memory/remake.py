"""Data remaking: refined prompts and reworded questions made training rows (paper, section on data remaking)."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from agent.protocols import Scorers
from agent.reasoning import spoken
from agent.records.actions import Rows
from agent.records.base import Record, digest, folded
from agent.records.edits import Rewrite
from agent.records.evaluation import ExampleScore
from agent.records.examples import Example, Prompt, Turn
from agent.records.rounds import Remaking

if TYPE_CHECKING:
    from datasets import Dataset

Hard = tuple[Example, ExampleScore]


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
    """The refined rows, and where the others went: given = rows + refused + duplicates.

    `given` counts the examples that are not demonstrations and the rewrites of them, `refused` the examples whose shown
    answer does not pass, `rewritten` the rows that are rewrites.
    """

    rows: "Dataset"
    given: int
    refused: int
    duplicates: int
    rewritten: int


def source_of(example: Example) -> str:
    """What a rewrite knows its example by: the content hash of all but its name, in whatever file or line."""
    parts = [example.question, example.answer, [turn.model_dump() for turn in example.turns]]
    return digest([*parts, example.system] if example.system else parts)


def remake(train: Sequence[Example], prompt: Prompt, scorers: Scorers, rewrites: Iterable[Rewrite] = ()) -> Remade:
    """Every train example that `prompt` does not demonstrate, its reference in the wanted form, where that passes;
    and every rewrite of such an example, with the model's answer that passed.

    Args:
        rewrites: kept ones; those of other rows than these are left out.

    Raises:
        ValueError: an example is not of the train split.
    """
    _require_train(train)
    shown = {demo.question for demo in prompt.demos}
    given = [example for example in train if example.question not in shown]
    passed = [row for example in given if (row := _refined(example, prompt, scorers)) is not None]
    reworded = [row for row in _reworded(given, prompt, rewrites) if row.question not in shown]
    rows = list(_distinct([*passed, *reworded]))
    return Remade(
        rows=table(rows),
        given=len(given) + len(reworded),
        refused=len(given) - len(passed),
        duplicates=len(passed) + len(reworded) - len(rows),
        rewritten=sum(row.rewritten for row in rows),
    )


def select(train: Sequence[Example], remade: Remade | None, rows: Rows) -> list[TrainingRow]:
    """The rows to train on: as given, refined, or both (a refined row that equals an original stands once).

    Raises:
        ValueError: an example is not of the train split, or refined rows are asked for and none were made.
    """
    _require_train(train)
    original = [TrainingRow(source=example.name, **example.model_dump(exclude={"name"})) for example in train]
    if rows == "original":
        return original
    if remade is None:
        raise ValueError(f"rows={rows!r} needs the rows that remake() returns")
    refined = [TrainingRow.model_validate(row) for row in remade.rows]
    return refined if rows == "refined" else original + list(_distinct(refined, original))


def table(rows: Sequence[TrainingRow]) -> "Dataset":
    """Columns question, answer, source, prompt (may be null), system, turns (of role and content) and rewritten."""
    from datasets import Dataset, Features, List, Value

    text = Value("string")
    turns = List({"role": text, "content": text})
    names = ("question", "answer", "source", "prompt", "system")
    features = Features(dict.fromkeys(names, text) | {"turns": turns, "rewritten": Value("bool")})
    dumped = [row.model_dump(mode="json") for row in rows]
    # By column: from_list() cannot make an empty table.
    return Dataset.from_dict({name: [row[name] for row in dumped] for name in features}, features=features)


def _refined(example: Example, prompt: Prompt, scorers: Scorers) -> TrainingRow | None:
    answer = scorers.show(example.answer)
    if not scorers.full_marks(answer, example):
        return None
    return TrainingRow(
        question=example.question, answer=answer, source=example.name, prompt=prompt.id, turns=example.turns,
        system=example.system,
    )  # fmt: skip


def _reworded(given: Sequence[Example], prompt: Prompt, rewrites: Iterable[Rewrite]) -> Iterator[TrainingRow]:
    by_source = {source_of(example): example for example in given}
    for rewrite in rewrites:
        if example := by_source.get(rewrite.source):
            yield TrainingRow(
                question=rewrite.question, answer=rewrite.answer, source=example.name, prompt=prompt.id,
                turns=example.turns, system=example.system, rewritten=True,
            )  # fmt: skip


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


# --- hard questions in other words -----------------------------------------------------------------


def reword(
    hard: Sequence[Hard],
    recalled: Sequence[Rewrite],
    ask: Callable[[Sequence[Hard]], Mapping[str, str]],
    answer: Callable[[Sequence[Example]], Sequence[str]],
    score: Callable[[Sequence[tuple[Example, str]]], Sequence[ExampleScore]],
    *,
    prompt: str,
    taken: Iterable[str] = (),
) -> tuple[list[Rewrite], Remaking]:
    """The rewrites under which the model's answer earns full reward, and what all of them changed.

    One is not even tried that is empty, gives the answer away, or repeats, case and white space aside, a hard question,
    a taken one or another rewrite.

    Args:
        hard: train examples, and the scores of the model's answers to them as given.
        recalled: known rewrites, at most one to a source. They are measured like new ones.
        ask: rewritten questions by example name, of those examples that nothing is recalled for.
        answer: the model's answers, in order, under the prompt with the id `prompt`.
        score: of answers to the examples *as given*: other words may not change what is right.
        taken: questions that must not be repeated: those of other rows, of held-out ones above all.
    """
    known = {rewrite.source: rewrite.question for rewrite in recalled}
    found = {example.name: known[source] for example, _ in hard if (source := source_of(example)) in known}
    missing = [pair for pair in hard if pair[0].name not in found]
    asked = ask(missing) if missing else {}
    usable = _usable([example for example, _ in hard], {**asked, **found}, taken)
    tried = [pair for pair in hard if pair[0].name in usable]
    outputs = answer([_put(example, usable[example.name]) for example, _ in tried]) if tried else []
    after = score([(example, output) for (example, _), output in zip(tried, outputs, strict=True)]) if tried else []
    passed = [(example, scored.output) for (example, _), scored in zip(tried, after, strict=True) if scored.reward == 1]
    kept = [
        Rewrite(source=source_of(example), question=usable[example.name], answer=spoken(output), prompt=prompt)
        for example, output in passed
    ]
    return kept, Remaking(
        asked=len(hard),
        tried=len(tried),
        kept=len(kept),
        recalled=sum(example.name in found for example, _ in passed),
        before=_mean([before for _, before in tried]),
        after=_mean(after),
    )


def _usable(hard: Sequence[Example], rewritten: Mapping[str, str], taken: Iterable[str]) -> dict[str, str]:
    """The rewritten questions, by example name, that may be tried."""
    seen = {folded(question) for question in (*taken, *(example.question for example in hard))} | {""}
    usable = {}
    for example in hard:
        question = rewritten.get(example.name, "").strip()
        if folded(question) not in seen and not _gives_away(question, example):
            seen.add(folded(question))
            usable[example.name] = question
    return usable


def _gives_away(question: str, example: Example) -> bool:
    """Whether it says the answer's last line, where worked answers have their result, and the example does not."""
    result = example.answer.strip().rpartition("\n")[2].lstrip("# ")
    return _says(question, result) and not _says(example.question, result)


def _says(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text as whole words."""
    return re.search(rf"(?<!\w){re.escape(folded(phrase))}(?!\w)", folded(text)) is not None


def _put(example: Example, question: str) -> Example:
    return example.model_copy(update={"question": question})


def _mean(scores: Sequence[ExampleScore]) -> float:
    return fmean(score.reward for score in scores) if scores else 0.0
