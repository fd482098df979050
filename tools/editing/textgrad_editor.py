"""Rewriting words with an LLM: the TextGrad editor criticises answers and rewrites the prompt from the critiques."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from agent import prompts
from agent.config.prompt import Editing
from agent.errors import LlmUnavailable, Useless
from agent.protocols import Chat, Progress, Scorers
from agent.records.actions import EditPrompt
from agent.records.edits import Critique, Edit, Edits
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Demo, Example, Prompt, TextPart
from tools.editing.critique import KEPT, PartGradient, describe_case, feedback_by_part, request, shorten, verdict
from tools.editing.descent import descend, library, text_gradients
from tools.editing.prompt_parts import (
    NAMES,
    ROLES,
    PromptParts,
    UnusableRewrite,
    constraints,
    demos_as_text,
    filled,
    part_texts,
    size,
)
from tools.llm.parallel import run_parallel

QUESTION = "question to a small language model"

T = TypeVar("T")
Item = TypeVar("Item")


class Descent(NamedTuple):
    """One step of gradient descent: a part of the prompt as it is, and the gradients that are to change it."""

    part: TextPart
    text: str
    gradients: Sequence[PartGradient]
    examples: Sequence[Demo]


class Rewrite(NamedTuple):
    """The result of a descent: a changed prompt, or None; and a remark, or nothing."""

    descent: Descent
    prompt: Prompt | None
    remark: str


class TextGradEditor:
    """Criticises failing answers, and rewrites the parts of the prompt by textual gradient descent.

    Args:
        chat: the LLM that criticises and rewrites.
        scorers: their explanations are the losses; their instructions are constraints of every descent.
        settings: how many critiques, proposals and demonstrations; how long a prompt may become.
        example_of: the train row of a score, by name.
        progress: called after every answer of the LLM.
    """

    name = "textgrad"

    def __init__(
        self, chat: Chat, scorers: Scorers, settings: Editing, example_of: Callable[[str], Example], progress: Progress
    ) -> None:
        self._chat = chat
        self._scorers = scorers
        self._settings = settings
        self._example_of = example_of
        self._progress = progress

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], action: EditPrompt, seed: int
    ) -> Edits:
        """Prompts with one part rewritten, or system text and demonstrations together; remarks on what failed.

        Raises:
            LlmUnavailable: the LLM did not answer, or was lost before there was any result.
        """
        if action.parts == ("retrieval",):
            return Edits()  # no text
        failing = [score for score in evaluation.scores if score.reward < 1]
        if not failing:
            lack = "falls short" if action.failures == "any" else f"lacks {action.failures}"
            return Edits(remarks=(f"No train row {lack}, so TextGrad has nothing to learn from",))
        draw = random.Random(seed)
        criticised = draw.sample(failing, min(self._settings.critiques, len(failing)))
        parts = PromptParts(prompt, train, self._scorers, self._settings)
        examples = parts.examples([self._example_of(score.example) for score in criticised], draw)
        texts = parts.start_texts(action.parts, examples)
        if not texts:
            return Edits(remarks=("No train row can be shown as a demonstration, so TextGrad has nothing to rewrite",))
        gradients = self.criticise(prompt, tuple(texts), criticised)
        descents = _descents(texts, gradients, examples)[: self._settings.proposals]
        results, error = self._parallel("rewriting the prompt", partial(self._rewrite, parts), descents)
        if error and not results:
            raise error
        rewrites, lost = list(results.values()), [f"TextGrad stopped half way: {error}"] if error else []
        return Edits(
            edits=tuple(_edits(parts, rewrites)),
            critiques=tuple(Critique(part=g.part, example=g.example, text=shorten(g.text, KEPT)) for g in gradients),
            remarks=tuple(dict.fromkeys([*(rewrite.remark for rewrite in rewrites if rewrite.remark), *lost])),
        )

    def reword(self, hard: Sequence[tuple[Example, ExampleScore]]) -> dict[str, str]:
        """Train questions in other words, by the row's name; those without a usable reply are left out.

        One call for each question: the scorers' explanation of the answer is the gradient. Questions longer than
        `prompts.CHARACTER_LIMIT` are left out. If the LLM is lost half way, the results until then are returned.

        Raises:
            LlmUnavailable: the LLM did not answer at all.
        """
        short = [(row, score) for row, score in hard if len(row.question) <= prompts.CHARACTER_LIMIT]
        results, error = self._parallel("rewriting questions", self._reword, short)
        if error and not results:
            raise error
        return {short[index][0].name: text for index, text in results.items() if text}

    def criticise(
        self, prompt: Prompt, parts: Sequence[TextPart], criticised: Sequence[ExampleScore]
    ) -> list[PartGradient]:
        """The gradients of these parts, by one call for each row, in the order of the rows. Raises LlmUnavailable."""

        def criticise_row(score: ExampleScore) -> list[PartGradient]:
            row = self._example_of(score.example)

            def ask(limit: int) -> list[PartGradient]:
                gradients = text_gradients(
                    self._chat,
                    {part: text for part, text in part_texts(prompt).items() if part in parts},
                    ROLES,
                    loss=verdict(score, limit),
                    critic=(prompts.read("critique"), request(prompt, parts, row, score, limit)),
                    read=partial(feedback_by_part, parts=parts),
                )
                case = partial(describe_case, row, score)
                return [PartGradient(part, row.name, text, case) for part, text in gradients.items()]

            with suppress(Useless):
                return prompts.ask_within_limit(ask)
            return []

        results, error = self._parallel("criticising answers", criticise_row, criticised)
        if error:
            raise error
        return [gradient for gradients in results.values() for gradient in gradients]

    def _rewrite(self, parts: PromptParts, descent: Descent) -> Rewrite:
        try:
            if not descent.gradients:
                raise UnusableRewrite("no critique asks for a change")
            return Rewrite(descent, *parts.replace(descent.part, self._descend(descent)))
        except UnusableRewrite as error:
            return Rewrite(descent, None, f"TextGrad's {NAMES[descent.part]} was left: {error}")

    def _descend(self, descent: Descent) -> str:
        """The part's new text. Raises UnusableRewrite."""
        wanted = constraints(descent.part, self._scorers, self._settings)
        demos = descent.part == "demos"  # these repeat rows, whose <<< >>> must not be taken for ours
        text = prompts.disarmed(descent.text) if demos else descent.text

        def ask(limit: int) -> str:
            cases = [(shorten(gradient.text, limit), gradient.case(limit // 2)) for gradient in descent.gradients]
            shown = [demo for demo in descent.examples if demos and size(demo) <= limit]
            examples = [prompts.disarmed(demos_as_text(shown))] if shown else []
            return descend(self._chat, text, ROLES[descent.part], cases, wanted, examples)

        return prompts.ask_within_limit(ask)

    def _reword(self, failure: tuple[Example, ExampleScore]) -> str:
        """The question in other words; empty if the reply is useless."""
        row, score = failure
        question, wanted = prompts.disarmed(row.question), filled("reword", self._scorers, self._settings)

        def ask(limit: int) -> str:
            case = verdict(score, limit), f"Answer: {prompts.quoted(score.output, limit)}"
            return descend(self._chat, question, QUESTION, [case], wanted)

        with suppress(UnusableRewrite):
            text = prompts.ask_within_limit(ask)
            return text if text != question and len(text) <= self._settings.max_length else ""
        return ""

    def _parallel(
        self, what: str, work: Callable[[Item], T], items: Sequence[Item]
    ) -> tuple[dict[int, T], LlmUnavailable | None]:
        library()  # imported here, before many threads would import it
        return run_parallel(work, items, self._chat, what, self._progress)


def _descents(
    texts: Mapping[TextPart, str], gradients: Sequence[PartGradient], examples: Sequence[Demo]
) -> list[Descent]:
    """A descent for each part from all its gradients, and a second one for the system text from half of them."""
    by_part = {part: [gradient for gradient in gradients if gradient.part == part] for part in texts}
    descents = [Descent(part, text, by_part[part], examples) for part, text in texts.items()]
    system = by_part.get("system", [])
    return descents + ([Descent("system", texts["system"], system[::2], examples)] if len(system) > 1 else [])


def _edits(parts: PromptParts, rewrites: Sequence[Rewrite]) -> Iterator[Edit]:
    """The changed prompts; before templates, system text and demonstrations together, which often need each other."""
    changed = [(rewrite.descent, rewrite.prompt) for rewrite in rewrites if rewrite.prompt]
    edits = [
        Edit(
            prompt=prompt,
            note=f"the {NAMES[descent.part]} rewritten by TextGrad from {len(descent.gradients)} critiques",
        )
        for descent, prompt in changed
    ]
    system, demos = (
        next((prompt for descent, prompt in changed if descent.part == part), None) for part in ("system", "demos")
    )
    if system and demos:
        with suppress(UnusableRewrite):
            both = parts.checked(system.model_copy(update={"demos": demos.demos}))
            edits.insert(2, Edit(prompt=both, note="system text and demonstrations rewritten by TextGrad"))
    yield from edits
