"""The parts of a prompt as texts for an LLM to rewrite, and rewritten texts checked and put back into the prompt."""

import random
import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from agent import prompts
from agent.config.prompt import Editing
from agent.protocols import Scorers
from agent.records.base import folded
from agent.records.examples import Demo, Example, Part, Prompt, TextPart

NAMES: dict[TextPart, str] = {
    "system": "system text",
    "demos": "demonstrations",
    "questions": "question template",
}
ROLES: dict[TextPart, str] = {
    "system": "system prompt of a small language model",
    "demos": "demonstrations that a small language model sees before every question",
    "questions": "template in which every question is put to a small language model",
}
PLACE = "{question}"
DEMO = re.compile(r"<question>(.*?)</question>\s*<answer>(.*?)</answer>", re.DOTALL)


class UnusableRewrite(ValueError):
    """Why a rewritten text cannot be used."""


def demos_as_text(demos: Iterable[Demo]) -> str:
    """The demonstrations in order, each tag and each text on lines of its own."""
    return "\n\n".join(
        f"<question>\n{demo.question}\n</question>\n<answer>\n{demo.answer}\n</answer>" for demo in demos
    )


def parse_demos(text: str) -> list[Demo]:
    """The demonstrations in a text, without white space around them; other text is ignored."""
    return [Demo(question=question.strip(), answer=answer.strip()) for question, answer in DEMO.findall(text)]


def size(row: Example | Demo) -> int:
    """Characters of question and answer."""
    return len(row.question) + len(row.answer)


def part_texts(prompt: Prompt) -> dict[TextPart, str]:
    """The text of each part."""
    return {"system": prompt.system, "demos": demos_as_text(prompt.demos), "questions": prompt.template}


def constraints(part: TextPart, scorers: Scorers, settings: Editing) -> list[str]:
    """What a rewritten part must keep to, in sentences for the LLM."""
    return filled(f"step_{part}", scorers, settings) + filled("step", scorers, settings)


def filled(name: str, scorers: Scorers, settings: Editing) -> list[str]:
    """The lines of a file of constraints, with what is wanted of this task's answers."""
    wanted = " ".join(scorers.instructions()) or "They are right."
    return prompts.fill(name, wanted=wanted, most=settings.max_length, demos=settings.demos).splitlines()


class PromptParts:
    """The parts of one prompt.

    Args:
        train: the rows that demonstrations may be taken from.
        scorers: show an answer in the wanted form, and say whether one passes.
        settings: how many demonstrations, how long a prompt may become.
        by: who rewrites, for remarks.
    """

    def __init__(
        self, prompt: Prompt, train: Sequence[Example], scorers: Scorers, settings: Editing, by: str = "TextGrad"
    ) -> None:
        self.prompt = prompt
        self._train = train
        self._scorers = scorers
        self._settings = settings
        self._by = by

    def examples(self, failing: Sequence[Example], draw: random.Random) -> list[Demo]:
        """Train rows in the wanted form, twice as many as a prompt may show: failing ones first, then any.

        Rows longer than `prompts.CHARACTER_LIMIT` are left out: the LLM is to copy them, so they cannot be shortened.
        """
        most = 2 * self._settings.demos
        short, hard = ([row for row in rows if size(row) <= prompts.CHARACTER_LIMIT] for rows in (self._train, failing))
        others = draw.sample(short, min(most, len(short)))
        rows = [row for row in dict.fromkeys([*hard[:most], *others]) if row.stands_alone]
        shown = [(row, self._scorers.show(row.answer)) for row in rows]
        demos = [
            Demo(question=row.question, answer=answer) for row, answer in shown if self._scorers.full_marks(answer, row)
        ]
        return list(dict.fromkeys(demos))[:most]

    def start_texts(self, parts: Iterable[Part], examples: Sequence[Demo]) -> dict[TextPart, str]:
        """The texts of these parts, to rewrite. A prompt without demonstrations starts from the examples."""
        demos = (self.prompt.demos or tuple(examples))[: self._settings.demos]
        texts = part_texts(self.prompt.model_copy(update={"demos": demos}))
        return {part: text for part, text in texts.items() if part in parts and (demos or part != "demos")}

    def replace(self, part: TextPart, text: str) -> tuple[Prompt, str]:
        """The prompt with this text as its part, and a remark if some of the text was left out.

        Raises:
            UnusableRewrite: the text cannot be used as this part.
        """
        if not text:
            raise UnusableRewrite("the reply was empty")
        if part == "demos":
            demos, remark = self._demos(text)
            return self.checked(self.prompt.model_copy(update={"demos": demos})), remark
        if part == "questions" and text.count(PLACE) != 1:
            raise UnusableRewrite(f"it must hold {PLACE} exactly once")
        field = "system" if part == "system" else "template"
        return self.checked(self.prompt.model_copy(update={field: text})), ""

    def checked(self, edit: Prompt) -> Prompt:
        """The edit, if it changes the prompt and is short enough: `max_length`, or the present length if that is more.

        Raises:
            UnusableRewrite: otherwise.
        """
        if edit == self.prompt:
            raise UnusableRewrite("the reply changed nothing")
        most = max(self._settings.max_length, self.prompt.length)
        if edit.length > most:
            raise UnusableRewrite(f"it makes the prompt longer than {most} characters")
        return edit

    def _demos(self, text: str) -> tuple[tuple[Demo, ...], str]:
        found = parse_demos(text)
        good = list(dict.fromkeys(known for demo in found if (known := self._known(demo))))
        if not good:
            raise UnusableRewrite("no demonstration in it is a train row with an answer that passes")
        kept = tuple(good[: self._settings.demos])
        left = len(found) - len(kept)
        return kept, f"{left} of {self._by}'s {len(found)} demonstrations were left out" if left else ""

    def _known(self, demo: Demo) -> Demo | None:
        """The prompt's demonstration that this repeats, or a train row's question with this answer, if that passes."""
        for own in self.prompt.demos:
            if disarmed(own) == disarmed(demo):
                return own
        rows = self._rows_by_question.get(_key(demo), [])
        return next(
            (
                Demo(question=row.question, answer=demo.answer)
                for row in rows
                if self._scorers.full_marks(demo.answer, row)
            ),
            None,
        )

    @cached_property
    def _rows_by_question(self) -> dict[str, list[Example]]:
        """Train rows that may be shown as a demonstration."""
        rows: dict[str, list[Example]] = {}
        for row in self._train:
            if row.stands_alone:
                rows.setdefault(_key(row), []).append(row)
        return rows


def disarmed(demo: Demo) -> Demo:
    """The demonstration as it is shown to the LLM that rewrites it."""
    return Demo(question=prompts.disarmed(demo.question), answer=prompts.disarmed(demo.answer))


def _key(row: Example | Demo) -> str:
    return folded(prompts.disarmed(row.question))
