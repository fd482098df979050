"""Rewriting words without an LLM: the rule editor; and an editor that combines it with an LLM's."""

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

TITLES = {"textgrad": "TextGrad", "gepa": "GEPA"}


class RuleEditor:
    """Edits the system text and the demonstrations by rule, from what the style scorers say about the failures.

    Args:
        scorers: give the instructions, and show a reference in the wanted form.
        settings: how many proposals and demonstrations, how long a prompt may become.
        recalled: prompts that memory found on near tasks.
    """

    name = "rules"

    def __init__(self, scorers: Scorers, settings: Editing, recalled: Sequence[Prompt] = ()) -> None:
        self._scorers = scorers
        self._settings = settings
        self._recalled = recalled

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], action: EditPrompt, seed: int
    ) -> Edits:
        """At most `settings.proposals` different prompts, each with a note about what was changed."""
        instructed = self._instructed(prompt, evaluation) if "system" in action.parts else prompt
        edits = [Edit(prompt=instructed, note="the instruction spelled out")]
        edits += [Edit(prompt=recalled, note="a prompt recalled from an earlier run") for recalled in self._recalled]
        if "demos" in action.parts:
            edits += self._demonstrated(instructed, train, seed)
            if prompt.demos:
                edits.append(Edit(prompt=_with_demos(prompt, prompt.demos[:-1]), note="one demonstration fewer"))
        distinct: dict[str, Edit] = {}
        for edit in edits:
            is_new = edit.prompt.id not in distinct and edit.prompt.id != prompt.id
            if is_new and edit.prompt.length <= self._settings.max_length and len(distinct) < self._settings.proposals:
                distinct[edit.prompt.id] = edit
        return Edits(edits=tuple(distinct.values()))

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
        """Random train rows in the wanted form, few and many: instead of the prompt's own, and added to them."""
        draw = random.Random(seed)
        has = {demo.question for demo in prompt.demos}
        rows = [
            row
            for row in train
            if row.question not in has
            and row.stands_alone
            and self._scorers.full_marks(self._scorers.show(row.answer), row)
        ]
        most = min(self._settings.demos, len(rows))
        for count in sorted({min(2, most), most} - {0}):
            for _ in range(2):
                demos = tuple(self._demo(row) for row in draw.sample(rows, count))
                yield Edit(prompt=_with_demos(prompt, demos), note=f"{count} demonstrations from train rows")
        free = self._settings.demos - len(prompt.demos)
        if prompt.demos and free > 0 and rows:
            added = tuple(self._demo(row) for row in draw.sample(rows, min(free, len(rows))))
            yield Edit(prompt=_with_demos(prompt, prompt.demos + added), note=f"{len(added)} more demonstrations")

    def _demo(self, row: Example) -> Demo:
        return Demo(question=row.question, answer=self._scorers.show(row.answer))


class CombinedEditor:
    """An editor that asks an LLM, and a second one, which works alone where the LLM does not answer.

    Args:
        most: proposals of both together. The first editor's come first; a third is reserved for the second's.
    """

    def __init__(self, first: Editor, second: Editor, most: int) -> None:
        self.name = first.name
        self._first = first
        self._second = second
        self._most = most

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], action: EditPrompt, seed: int
    ) -> Edits:
        """Different prompts of both editors, with the critiques of the first and the remarks of both."""
        try:
            own = self._first.propose(prompt, evaluation, train, action, seed)
        except LlmUnavailable as error:
            own = Edits(remarks=(f"{TITLES[self.name]} was not used: {error}",))
        others = self._second.propose(prompt, evaluation, train, action, seed)
        first = own.edits[: self._most - min(self._most // 3, len(others.edits))]
        by_prompt: dict[str, Edit] = {}
        for edit in (*first, *others.edits):
            by_prompt.setdefault(edit.prompt.id, edit)
        edits = tuple(by_prompt.values())[: self._most]
        return Edits(edits=edits, critiques=own.critiques, remarks=own.remarks + others.remarks)


def _with_demos(prompt: Prompt, demos: tuple[Demo, ...]) -> Prompt:
    return prompt.model_copy(update={"demos": demos})
