"""Rewriting words without an LLM: the rule editor. (The TextGrad editor stands beside it, in textgrad_edit.py.)"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence

from agent.config.prompt import Editing
from agent.errors import LlmUnavailable
from agent.protocols import Editor, Scorers
from agent.records.actions import EditPrompt
from agent.records.edits import Edit, Edits
from agent.records.evaluation import Evaluation
from agent.records.examples import Demo, Example, Prompt


class RuleEditor:
    """Reads what the style scorers say of the failures; edits the system text and the demonstrations by rule.

    Args:
        scorers: say what is wanted and show a reference in the wanted form.
        settings: how many proposals and demonstrations, how long a prompt may become.
        recalled: prompts that memory found on near tasks.
    """

    name = "rules"

    def __init__(self, scorers: Scorers, settings: Editing, recalled: Sequence[Prompt] = ()) -> None:
        self._scorers = scorers
        self._settings = settings
        self._recalled = recalled

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], move: EditPrompt, seed: int
    ) -> Edits:
        """At most `settings.proposals` different prompts, each with a note that says what was changed."""
        told = self._instructed(prompt, evaluation) if "system" in move.parts else prompt
        edits = [Edit(prompt=told, note="the instruction spelled out")]
        edits += [Edit(prompt=recalled, note="a prompt recalled from an earlier run") for recalled in self._recalled]
        if "demos" in move.parts:
            edits += [*self._demonstrated(told, train, seed), *_shorter(prompt)]
        return Edits(edits=tuple(_distinct(edits, prompt, self._settings)))

    def _instructed(self, prompt: Prompt, evaluation: Evaluation) -> Prompt:
        """The system text with the instructions of the failing scorers added, the most frequent first."""
        wanted = Counter(
            instruction
            for score in evaluation.scores
            if score.style < 1
            for instruction in self._scorers.instructions(score.output)
        )
        missing = [instruction for instruction, _ in wanted.most_common() if instruction not in prompt.system]
        return prompt.model_copy(update={"system": " ".join([prompt.system, *missing]).strip()})

    def _demonstrated(self, prompt: Prompt, train: Sequence[Example], seed: int) -> Iterator[Edit]:
        """Draws of train rows in the wanted form: few and many, new and beside those the prompt has."""
        draw = random.Random(seed)
        has = {demo.question for demo in prompt.demos}
        rows = [row for row in train if row.question not in has and row.stands_alone and self._showable(row)]
        most = min(self._settings.demos, len(rows))
        for count in sorted({min(2, most), most} - {0}):
            for _ in range(2):
                demos = tuple(self._demo(row) for row in draw.sample(rows, count))
                yield Edit(prompt=_showing(prompt, demos), note=f"{count} demonstrations from train rows")
        room = self._settings.demos - len(prompt.demos)
        if prompt.demos and room > 0 and rows:
            more = tuple(self._demo(row) for row in draw.sample(rows, min(room, len(rows))))
            yield Edit(prompt=_showing(prompt, prompt.demos + more), note=f"{len(more)} more demonstrations")

    def _showable(self, row: Example) -> bool:
        return self._scorers.full_marks(self._scorers.show(row.answer), row)

    def _demo(self, row: Example) -> Demo:
        return Demo(question=row.question, answer=self._scorers.show(row.answer))


class CombinedEditor:
    """An editor that asks an LLM, and one that goes on by itself where the LLM does not answer.

    Args:
        most: how many proposals they make together. The first's come first; a third is kept for the second's.
    """

    def __init__(self, first: Editor, second: Editor, most: int) -> None:
        self.name = first.name
        self._first = first
        self._second = second
        self._most = most

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], move: EditPrompt, seed: int
    ) -> Edits:
        """Different prompts of both editors, and all that the first remarks."""
        try:
            own = self._first.propose(prompt, evaluation, train, move, seed)
        except LlmUnavailable as error:
            own = Edits(remarks=(f"TextGrad was not used: {error}",))
        others = self._second.propose(prompt, evaluation, train, move, seed)
        first = own.edits[: self._most - min(self._most // 3, len(others.edits))]
        by_prompt: dict[str, Edit] = {}
        for edit in (*first, *others.edits):
            by_prompt.setdefault(edit.prompt.id, edit)
        edits = tuple(by_prompt.values())[: self._most]
        return Edits(edits=edits, critiques=own.critiques, remarks=own.remarks + others.remarks)


def _shorter(prompt: Prompt) -> Iterator[Edit]:
    if prompt.demos:
        yield Edit(prompt=_showing(prompt, prompt.demos[:-1]), note="one demonstration fewer")


def _showing(prompt: Prompt, demos: tuple[Demo, ...]) -> Prompt:
    return prompt.model_copy(update={"demos": demos})


def _distinct(edits: Sequence[Edit], present: Prompt, settings: Editing) -> Iterator[Edit]:
    seen = {present.id}
    for edit in edits:
        id = edit.prompt.id
        if id not in seen and edit.prompt.length <= settings.max_length and len(seen) <= settings.proposals:
            seen.add(id)
            yield edit
