"""Rewriting words with an LLM: the GEPA editor reflects on answers, and keeps every prompt that is best on some row."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

from agent import prompts
from agent.config.prompt import Editing
from agent.counting import plural
from agent.errors import Useless
from agent.protocols import Chat, FindLeak, Progress, ScorePrompt, Scorers
from agent.records.actions import EditPrompt
from agent.records.edits import Critique, Edit, Edits
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Example, Part, Prompt, TextPart
from tools.editing.critique import KEPT, shorten
from tools.editing.descent import OPENED, last_tagged
from tools.editing.pareto_search import Found, Texts, search
from tools.editing.prompt_parts import NAMES, PromptParts, UnusableRewrite, constraints, part_texts
from tools.editing.reflection import Reflection, reflection_request


class GepaEditor:
    """Rewrites prompts from reflections on a few answers each, several parents side by side.

    Unlike other editors it scores what it writes, on the train rows that it is shown.

    Args:
        chat: the LLM that reflects.
        scorers: say what is wanted, and show answers in the wanted form.
        settings: how many reflections, answers and proposals; how long a prompt may become.
        example_of: the train row of a score, by name.
        score: scores a prompt on train rows.
        leak: whether a prompt gives rows away; such a prompt is not scored, and no parent.
        progress: called after every reflection.
    """

    name = "gepa"

    def __init__(
        self,
        chat: Chat,
        scorers: Scorers,
        settings: Editing,
        example_of: Callable[[str], Example],
        score: ScorePrompt,
        leak: FindLeak,
        progress: Progress,
    ) -> None:
        self.chat = chat
        self.scorers = scorers
        self.settings = settings
        self.example_of = example_of
        self.score = score
        self.leak = leak
        self.progress = progress

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], action: EditPrompt, seed: int
    ) -> Edits:
        """The prompts of the Pareto front, the one of highest merit first; remarks on what failed.

        Raises:
            LlmUnavailable: the LLM did not answer, or was lost before there was any result.
        """
        if action.parts == ("retrieval",):
            return Edits()  # no text
        failing = [score.example for score in evaluation.scores if score.reward < 1]
        if not failing:
            lack = "falls short" if action.failures == "any" else f"lacks {action.failures}"
            return Edits(remarks=(f"No train row {lack}, so GEPA has nothing to learn from",))
        pool = Pool(self, prompt, evaluation, train, random.Random(seed))
        if self.settings.answers < pool.each:
            few = f"{self.settings.answers} answers (edit.metric_calls) are fewer than the {pool.each} of one proposal"
            return Edits(remarks=(f"GEPA proposed nothing: {few}",))
        texts = pool.start(action.parts)
        if not texts:
            return Edits(remarks=("GEPA has nothing to rewrite: no train row can be shown as a demonstration",))
        rows = [score.example for score in evaluation.scores]
        found, error = search(
            texts, failing, rows, pool.scores, pool.reflect, pool.spent, self.settings.critiques, seed
        )
        edits = tuple(pool.edits(found))[: self.settings.proposals]
        if error and not edits:
            raise error
        lost = [f"GEPA stopped half way: {error}"] if error else []
        if not (edits or lost):
            lost = [f"None of {pool.written} rewrites by GEPA did better than its parent on any row"]
        return Edits(edits=edits, critiques=tuple(pool.critiques), remarks=(*dict.fromkeys(pool.remarks), *lost))


class Pool:
    """The prompts of one search, by their texts, with the scores they have so far."""

    def __init__(
        self, editor: GepaEditor, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], draw: random.Random
    ) -> None:
        self._editor = editor
        self._present = prompt
        self._adapter = evaluation.candidate.adapter
        self._train = train
        self._draw = draw
        self._prompts: dict[tuple[str, ...], Prompt] = {}
        self._scores = {(prompt.id, score.example): score for score in evaluation.scores}
        self._answers = 0
        self.each = len(evaluation.scores)  # answers that one proposal takes, at most
        self.written = 0
        self._asked = 0
        self.critiques: list[Critique] = []
        self.remarks: list[str] = []

    def start(self, parts: Sequence[Part]) -> Texts:
        """The texts of the present prompt that can be rewritten, by part."""
        own = self._parts(self._present)
        can = own.start_texts(parts, own.examples([], random.Random(0)))
        texts: Texts = {part: text for part, text in part_texts(self._present).items() if part in can}
        self._prompts[_key(texts)] = self._present
        return texts

    def scores(self, texts: Texts, names: Sequence[str]) -> list[ExampleScore]:
        """In order. Rows without a score are answered."""
        prompt = self._prompts[_key(texts)]
        missing = [name for name in dict.fromkeys(names) if (prompt.id, name) not in self._scores]
        if missing:
            self._answers += len(missing)
            measured = self._editor.score(prompt, self._adapter, missing)
            self._scores |= {(prompt.id, score.example): score for score in measured.scores}
        return [self._scores[prompt.id, name] for name in names]

    def spent(self) -> bool:
        """Whether another proposal could take more answers than are left."""
        return self._answers + self.each > self._editor.settings.answers

    def reflect(self, texts: Texts, name: str, scores: Sequence[ExampleScore]) -> str | None:
        """The text of one part rewritten; None where the reply cannot be used, or brings a known prompt.

        Raises:
            LlmUnavailable: the LLM did not answer.
        """
        part, parent = cast(TextPart, name), self._prompts[_key(texts)]
        self._asked += 1
        try:
            prompt = self._rewritten(parent, part, scores)
        except UnusableRewrite as error:
            self.remarks.append(f"GEPA's {NAMES[part]} was left: {error}")
            return None
        finally:
            self._editor.progress("reflecting on answers", self._asked, self._editor.settings.critiques)
        text = part_texts(prompt)[part]
        key = _key({**texts, part: text})
        if key in self._prompts:
            return None
        self._prompts[key] = prompt
        self.written += 1
        return text

    def edits(self, found: Sequence[Found]) -> Iterator[Edit]:
        """The prompts of the front but the present one, best first; among equals, the shorter."""
        front = [(self._prompts[_key(each.texts)], each) for each in found if each.steps]
        for prompt, each in sorted(front, key=lambda item: (-self._merit(item[0]), item[0].length)):
            changed = [
                NAMES[part] for part, text in part_texts(self._present).items() if part_texts(prompt)[part] != text
            ]
            steps = plural(each.steps, "step")
            note = f"{' and '.join(changed)} rewritten by GEPA in {steps}; unbeaten on {each.rows} of {self.each} rows"
            yield Edit(prompt=prompt, note=f"the {note}")

    def _merit(self, prompt: Prompt) -> float:
        scores = [score.merit for (scored, _), score in self._scores.items() if scored == prompt.id]
        return sum(scores) / len(scores)

    def _parts(self, prompt: Prompt) -> PromptParts:
        return PromptParts(prompt, self._train, self._editor.scorers, self._editor.settings, by="GEPA")

    def _rewritten(self, parent: Prompt, part: TextPart, scores: Sequence[ExampleScore]) -> Prompt:
        """The parent with this part rewritten. Raises UnusableRewrite."""
        parts = self._parts(parent)
        rows = [self._editor.example_of(score.example) for score in scores]
        examples = parts.examples(rows, self._draw)
        text = parts.start_texts([part], examples)[part]
        about = Reflection(parent, part, text, list(zip(rows, scores, strict=True)), examples)
        reply = prompts.ask_within_limit(partial(self._ask, about))
        said = reply.partition(OPENED)[0].strip()
        worst = min(scores, key=lambda score: score.merit).example
        self.critiques.append(Critique(part=part, example=worst, text=shorten(said or "(no words)", KEPT)))
        prompt, remark = parts.replace(part, last_tagged(reply).strip())
        self.remarks += [remark] if remark else []
        if self._editor.leak(prompt, self._present):
            raise UnusableRewrite("it gives a row away")
        return prompt

    def _ask(self, about: Reflection, limit: int) -> str:
        """The reply, which holds a text between tags. Raises UnusableRewrite."""
        wanted = constraints(about.part, self._editor.scorers, self._editor.settings)
        try:
            request = reflection_request(about, wanted, limit)
            return self._editor.chat.complete(prompts.read("reflect"), request, last_tagged)
        except Useless as error:
            raise UnusableRewrite(str(error)) from None


def _key(texts: Texts) -> tuple[str, ...]:
    return tuple(texts.values())
