"""Which answers of a log become train rows, and which are set aside for a person."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent.config.data import Data
from agent.config.scorers import Judge
from agent.reasoning import spoken
from agent.records.base import folded
from agent.records.examples import Example
from agent.records.served import ServedMessage
from eval.drafts.parts import asked
from eval.feedback.log import UNJUDGED, Asked, SetAside
from eval.feedback.redaction import Redact
from eval.tasks.task import Task


class Sifted(NamedTuple):
    """New rows, in the task's columns; what was set aside; and what became of the rest, counted by the reason.

    `right` of the `known` answers whose wanted one was known had full marks.
    """

    rows: tuple[dict[str, object], ...]
    aside: tuple[SetAside, ...]
    dropped: dict[str, int]
    known: int
    right: int


class Sieve:
    """Sorts the answers of a log.

    Args:
        task: whose scorers judge, and whose rows are left alone; None: there is none, so only wanted answers count.
        data: the columns of the rows that are made.
        there: rows that an earlier call made; none of them is made again.
        wanted: what questions should be answered with, where that is known.
        redact: takes out of texts what is not to be kept.
    """

    def __init__(
        self,
        task: Task | None,
        data: Data,
        *,
        there: Sequence[Example] = (),
        wanted: Sequence[Example] = (),
        redact: Redact = str,
    ) -> None:
        self._task = task
        self._data = data
        self._redact = redact
        self._wanted = {_question(row): row.answer for row in wanted}
        splits = {"validation": task.validation, "test": task.test, "train": task.train} if task else {}
        self._there = {_question(row): "a row of an earlier call" for row in there}
        self._held_out: dict[str, str] = {}
        for split in ("train", "validation", "test"):  # the last word is the test's: nothing of it is ever trained on
            found = {_question(row): f"a {split} row of the task" for row in splits.get(split, ())}
            self._there |= found
            self._held_out |= found if split != "train" else {}

    def sift(self, log: Sequence[Asked]) -> Sifted:
        """Rows of good answers and of wanted ones; the rest aside, or dropped where it is known already."""
        rows: list[dict[str, object]] = []
        aside: list[SetAside] = []
        dropped: dict[str, int] = {}
        known = right = 0
        groups: dict[str, list[Asked]] = {}
        for item in log:
            shown = self._redacted(item)
            key = asked(shown.example)
            if found := self._known_as(item.example) or self._known_as(shown.example):
                dropped[found] = dropped.get(found, 0) + 1
                continue
            said = item.wanted or self._wanted.get(asked(item.example), "")
            if said:
                known += 1
                right += self._full_marks(item, said)
            groups.setdefault(key, []).append(shown._replace(wanted=self._redact(said)))
        for group in groups.values():
            row, left = self._of_question(group)
            rows += [row] if row else []
            aside += [left] if left else []
            if again := len({item.request for item in group}) - 1:
                dropped["asked more than once"] = dropped.get("asked more than once", 0) + again
        return Sifted(tuple(rows), tuple(aside), dropped, known, right)

    def _known_as(self, example: Example) -> str | None:
        """What it is already; also where a held-out question, whose answer it then holds, is one of several turns."""
        held_out = (self._held_out.get(asked(each)) for each in example.asked_anyhow)
        return next(filter(None, held_out), self._there.get(asked(example)))

    def _of_question(self, group: Sequence[Asked]) -> tuple[dict[str, object] | None, SetAside | None]:
        """The row of one question, or what is set aside of it."""
        first = group[0]
        if first.example.turns and not self._data.messages:
            column = "it goes on a conversation, and the task's rows hold a question alone"
            return None, _aside(next((item for item in group if item.wanted), first), column)
        if corrected := next((item for item in reversed(group) if item.wanted), None):
            return self._row(corrected, corrected.wanted, "wanted"), None
        faults = [self._fault(item) for item in group]
        good = [item for item, fault in zip(group, faults, strict=True) if not fault]
        if not good:
            return None, _aside(first, faults[0])
        answers = {folded(spoken(item.answer)): item for item in good}
        if len(answers) > 1:
            texts = " and ".join(f"'{item.answer}'" for item in list(answers.values())[:2])
            return None, _aside(good[0], f"it was answered in different ways: {texts}")
        return self._row(good[0], spoken(good[0].answer), "form"), None

    def _fault(self, item: Asked) -> str:
        """Why an answer is not good, as far as that shows without a wanted one; "" if nothing speaks against it."""
        if item.fault:
            return item.fault
        rules = [style for style in self._task.config.style if not isinstance(style, Judge)] if self._task else []
        if not self._task or not rules:
            return UNJUDGED
        return " ".join(self._task.scorers.faults(item.answer))

    def _full_marks(self, item: Asked, wanted: str) -> bool:
        example = item.example.model_copy(update={"answer": wanted})
        return self._task is not None and not item.fault and self._task.scorers.full_marks(item.answer, example)

    def _redacted(self, item: Asked) -> Asked:
        example = item.example
        turns = tuple(turn.model_copy(update={"content": self._redact(turn.content)}) for turn in example.turns)
        cleaned = example.model_copy(update={"question": self._redact(example.question), "turns": turns})
        return item._replace(example=cleaned, answer=self._redact(item.answer), wanted=self._redact(item.wanted))

    def _row(self, item: Asked, answer: str, judged: str) -> dict[str, object]:
        """In the task's columns; `judged` and `request` say where it is from, where no column is called so."""
        told: Mapping[str, object] = {"judged": judged, "request": item.request}
        if self._data.messages:
            turns = [*_conversation(item.example), ServedMessage(role="assistant", content=answer)]
            row: dict[str, object] = {self._data.messages: [turn.model_dump() for turn in turns]}
        else:
            row = {self._data.question: item.example.question, self._data.answer: answer}
        return {**told, **row}


def _question(row: Example) -> str:
    """What a row asks, as it compares; without its system text, which a log does not have."""
    return asked(row.model_copy(update={"system": ""}))


def _conversation(example: Example) -> tuple[ServedMessage, ...]:
    turns = [ServedMessage(role=turn.role, content=turn.content) for turn in example.turns]
    return (*turns, ServedMessage(role="user", content=example.question))


def _aside(item: Asked, reason: str) -> SetAside:
    return SetAside(
        reason=reason, messages=_conversation(item.example), answer=item.answer, wanted=item.wanted,
        request=item.request,
    )  # fmt: skip
