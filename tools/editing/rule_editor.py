"""Rewriting words without an LLM: the rule editor; and an editor that combines it with an LLM's."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean

from agent.config.prompt import Editing
from agent.errors import LlmUnavailable
from agent.protocols import Editor, Scorers
from agent.records.actions import EditPrompt
from agent.records.base import folded
from agent.records.edits import Edit, Edits
from agent.records.evaluation import Evaluation
from agent.records.examples import Demo, Example, Prompt, Retrieval

CHOICE = 2  # rows to choose from for each one that is retrieved: of fewer, the nearest are not near

TITLES = {"textgrad": "TextGrad", "gepa": "GEPA"}


class RuleEditor:
    """Edits system text, demonstrations and retrieval by rule, from what the style scorers say about the failures.

    Args:
        scorers: give the instructions, and show a reference in the wanted form.
        settings: how many proposals and demonstrations, how long a prompt may become.
        recalled: prompts that memory found on near tasks.
        retrieves: whether few-shot examples can be retrieved here.
    """

    name = "rules"

    def __init__(
        self, scorers: Scorers, settings: Editing, recalled: Sequence[Prompt] = (), retrieves: bool = False
    ) -> None:
        self._scorers = scorers
        self._settings = settings
        self._recalled = recalled
        self._retrieves = retrieves

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], action: EditPrompt, seed: int
    ) -> Edits:
        """At most `settings.proposals` different prompts, each with a note about what was changed."""
        rows = self._usable(train)
        instructed = self._instructed(prompt, evaluation) if "system" in action.parts else prompt
        edits = [Edit(prompt=instructed, note="the instruction spelled out")]
        edits += [Edit(prompt=recalled, note="a prompt recalled from an earlier run") for recalled in self._recalled]
        if "retrieval" in action.parts:
            edits += self._retrieving(instructed, rows, "demos" in action.parts)
        if "demos" in action.parts:
            draw = random.Random(seed)
            free = _not_shown(rows, prompt)
            own = _answered_right(free, evaluation)
            more = own if len(own) >= self._settings.demos else free
            drawn = [*self._demonstrated(instructed, free, own, draw)]
            edits += [*drawn[::2], *self._more_or_fewer(prompt, instructed, more, draw), *drawn[1::2]]
        distinct: dict[str, Edit] = {}
        for edit in edits:
            is_new = edit.prompt.id not in distinct and edit.prompt.id != prompt.id
            if is_new and self._is_short(edit.prompt, rows) and len(distinct) < self._settings.proposals:
                distinct[edit.prompt.id] = edit
        return Edits(edits=tuple(distinct.values()))

    def _usable(self, train: Sequence[Example]) -> list[Example]:
        """Train rows that can be shown in the wanted form."""
        return [
            row for row in train if row.stands_alone and self._scorers.full_marks(self._scorers.show(row.answer), row)
        ]

    def _is_short(self, prompt: Prompt, rows: Sequence[Example]) -> bool:
        """Whether it has at most `max_length` characters, with as many retrieved rows of mean length as it may show."""
        length: float = prompt.length
        if prompt.retrieval and rows:
            demos = map(self._demo, rows)
            length += prompt.retrieval.k * fmean(len(prompt.ask(demo.question)) + len(demo.answer) for demo in demos)
        return length <= self._settings.max_length

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

    def _retrieving(self, prompt: Prompt, rows: Sequence[Example], replaces: bool) -> Iterator[Edit]:
        """Few-shot examples retrieved for each question, many and few; or, where there are some, none any more.

        Args:
            replaces: whether the many may take the place of the demonstrations; the few stand beside them.
        """
        most, few = self._settings.retrieve, self._settings.retrieve // 2
        floor = prompt.retrieval.floor if prompt.retrieval else self._settings.floor
        for k in (most, few) if self._retrieves else ():
            if k and len(rows) >= CHOICE * k:
                retrieval = Retrieval(k=k, floor=floor)
                kept = () if replaces and k == most else prompt.demos
                beside = " instead of the demonstrations" if kept != prompt.demos else ""
                note = f"{retrieval}{beside} (longer for each question, and shared by none)"
                yield Edit(prompt=prompt.model_copy(update={"retrieval": retrieval, "demos": kept}), note=note)
        if prompt.retrieval:
            bare = prompt.model_copy(update={"retrieval": None})
            yield Edit(prompt=bare, note="no train rows retrieved any more")

    def _demonstrated(
        self, prompt: Prompt, rows: Sequence[Example], own: Sequence[Example], draw: random.Random
    ) -> Iterator[Edit]:
        """Train rows in the wanted form instead of the prompt's own demonstrations, few and many, each drawn twice:
        from the rows that the model gets right, if there are enough of them, and from all. Of the few, the former come
        first; of the many, the latter, so that both are compared where not all can be."""
        most = min(self._settings.demos, len(rows))
        for place, count in enumerate(sorted({min(2, most), most} - {0})):
            pools = [(own, "train rows whose content it gets right"), (rows, "all train rows")]
            if len(own) < count:
                pools = [(rows, "train rows"), (rows, "train rows, drawn anew")]
            for pool, origin in reversed(pools) if place else pools:
                demos = tuple(self._demo(row) for row in draw.sample(pool, count))
                yield Edit(prompt=_with_demos(prompt, demos), note=f"{count} demonstrations from {origin}")

    def _more_or_fewer(
        self, prompt: Prompt, instructed: Prompt, rows: Sequence[Example], draw: random.Random
    ) -> Iterator[Edit]:
        """The prompt's own demonstrations with random ones of these rows added to them; and without the last one."""
        free = self._settings.demos - len(prompt.demos)
        if prompt.demos and free > 0 and rows:
            added = tuple(self._demo(row) for row in draw.sample(rows, min(free, len(rows))))
            demos = prompt.demos + added
            yield Edit(prompt=_with_demos(instructed, demos), note=f"{len(added)} more demonstrations")
        if prompt.demos:
            yield Edit(prompt=_with_demos(prompt, prompt.demos[:-1]), note="one demonstration fewer")

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


def _not_shown(rows: Sequence[Example], prompt: Prompt) -> list[Example]:
    """The rows that the prompt does not demonstrate."""
    shown = {demo.question for demo in prompt.demos}
    return [row for row in rows if row.question not in shown]


def _answered_right(rows: Sequence[Example], evaluation: Evaluation) -> list[Example]:
    """The rows whose content the model got right by itself: one that is labelled wrongly is hardly among these.

    None of them where an adapter answered, which knows wrong train rows by heart, too; nor where all have one answer
    and others have another, since a model that always says the same is right by chance.

    Source: as demonstrations are bootstrapped in DSPy (arXiv 2310.03714), where the model's answer earns full marks.
    """
    if evaluation.candidate.adapter:
        return []
    right = {score.example for score in evaluation.scores if score.content == 1}
    own = [row for row in rows if row.name in right]
    answers, all_answers = ({folded(row.answer) for row in some} for some in (own, rows))
    return own if len(answers) > 1 or len(all_answers) == 1 else []


def _with_demos(prompt: Prompt, demos: tuple[Demo, ...]) -> Prompt:
    return prompt.model_copy(update={"demos": demos})
