"""An external LLM as scorer: it grades answers by a rubric, or compares them with the reference."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache, partial
from statistics import fmean
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, create_model

from agent import prompts
from agent.config.scorers import Judge
from agent.errors import LlmUnavailable
from agent.protocols import Chat, Progress, Rating
from agent.records.base import Record
from agent.records.examples import Example

REASON = 400

# A reason that is too long is cut off, and not asked for again. The schema names the bound.
Reason = Annotated[
    str,
    BeforeValidator(lambda reason: reason[:REASON] if isinstance(reason, str) else reason),
    Field(min_length=1, max_length=REASON, description="one or two sentences"),
]


class Grade(Record):
    """The grade of the answer, with the reason for it."""

    reason: Reason
    grade: int


class Preference(Record):
    """Which answer is better, with the reason for it."""

    reason: Reason
    better: Literal["A", "B", "tie"]


class LlmJudge:
    """Satisfies `agent.protocols.Rater`.

    By grade, the score is (grade - 1) / (scale - 1). With `compare`, the judge is asked twice, the output once as
    answer A and once as answer B, because judges favour a place (Zheng et al. 2023, Judging LLM-as-a-Judge). As good
    as the reference or better is 1, worse is 0, and the score is the mean of both: 0.5 where one contradicts the other.

    Args:
        chat: the LLM, called from `chat.width` threads at once.
        progress: called with the number of calls that have returned.
    """

    def __init__(self, settings: Judge, chat: Chat, progress: Progress | None = None) -> None:
        self._settings = settings
        self._chat = chat
        self._progress = progress

    def rate(self, answered: Sequence[tuple[Example, str]]) -> list[Rating]:
        """One rating per (example, output), in order.

        Raises:
            LlmUnavailable: a call failed. Calls that had not started yet are not made.
        """
        questions: list[Callable[[Example, str], Rating]] = [self._grade]
        if self._settings.compare:
            questions = [partial(self._compare, first=True), partial(self._compare, first=False)]
        calls = [partial(ask, example, output) for example, output in answered for ask in questions]
        ratings = self._all(calls)
        return [_mean(ratings[start : start + len(questions)]) for start in range(0, len(ratings), len(questions))]

    def _all(self, calls: Sequence[Callable[[], Rating]]) -> list[Rating]:
        """The results in order; the first failure ends the rest, and so does Ctrl-C."""
        pool, interrupted = ThreadPoolExecutor(self._chat.width), True
        try:
            out = [pool.submit(call) for call in calls]
            for done, future in enumerate(as_completed(out), start=1):
                future.result()
                if self._progress:
                    self._progress("judging", done, len(calls))
            interrupted = False
            return [future.result() for future in out]
        except LlmUnavailable:
            interrupted = False
            raise
        finally:
            if interrupted:
                self._chat.abandon()
            pool.shutdown(cancel_futures=True)

    def _grade(self, example: Example, output: str) -> Rating:
        scale = self._settings.scale
        system = prompts.fill("judge", rubric=self._settings.rubric, scale=scale)

        def ask(room: int) -> Grade:
            texts = {"reference": prompts.quoted(example.answer, room), "answer": prompts.quoted(output, room)}
            user = prompts.fill("judge_row", question=_asked(example, room), **texts)
            return self._chat.call_tool(system, user, [grade_within(scale)])

        grade = prompts.fitting(ask)
        return Rating((grade.grade - 1) / (scale - 1), grade.reason)

    def _compare(self, example: Example, output: str, first: bool) -> Rating:
        own, reference = ("A", "B") if first else ("B", "A")
        system = prompts.fill("judge_compare", rubric=self._settings.rubric)

        def ask(room: int) -> Preference:
            texts = {own.lower(): prompts.quoted(output, room), reference.lower(): prompts.quoted(example.answer, room)}
            user = prompts.fill("judge_compare_row", question=_asked(example, room), **texts)
            return self._chat.call_tool(system, user, [Preference])

        preference = prompts.fitting(ask)
        return Rating(float(preference.better != reference), f"As answer {own}: {preference.reason}")


@cache
def grade_within(scale: int) -> type[Grade]:
    """The tool for one scale. Its schema has the bounds, so that the LLM knows them."""
    return create_model("Grade", __base__=Grade, __doc__=Grade.__doc__, grade=(int, Field(ge=1, le=scale)))


def _asked(example: Example, room: int) -> str:
    """The question; where it continues a conversation or has a system text of its own, with these."""
    system = [f"system: {example.system}"] if example.system else []
    turns = system + [f"{turn.role}: {turn.content}" for turn in example.turns]
    return prompts.quoted("\n".join([*turns, f"user: {example.question}"] if turns else [example.question]), room)


def _mean(ratings: Sequence[Rating]) -> Rating:
    return Rating(fmean(rating.score for rating in ratings), " ".join(rating.reason for rating in ratings))
