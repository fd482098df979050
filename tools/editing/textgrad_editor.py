"""Rewriting words with an LLM: the TextGrad editor (Yuksekgonul et al. 2024). The only place that imports textgrad."""

import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from agent import prompts
from agent.config.prompt import Editing
from agent.errors import LlmUnavailable, Useless
from agent.protocols import Chat, Progress, Scorers
from agent.records.actions import EditPrompt
from agent.records.edits import Critique, Edit, Edits
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Demo, Example, Part, Prompt
from tools.editing.critique import Gradient, by_part, case, cut, request, verdict
from tools.editing.prompt_parts import NAMES, PromptParts, UnusableRewrite, as_texts, size, written
from tools.llm.parallel import run_parallel

ROLES: dict[Part, str] = {
    "system": "system prompt of a small language model",
    "demos": "demonstrations that a small language model sees before every question",
    "questions": "template in which every question is put to a small language model",
}
QUESTION = "question to a small language model"
OPENED, CLOSED = "<IMPROVED_VARIABLE>", "</IMPROVED_VARIABLE>"
TAGGED = re.compile(rf"{OPENED}((?:(?!{OPENED}|{CLOSED}).)*){CLOSED}", re.DOTALL)
KEPT = 600  # characters of a critique in the ledger

T = TypeVar("T")
Given = TypeVar("Given")


class Step(NamedTuple):
    """One descent: a part of the prompt as it stands, and the gradients that are to change it."""

    part: Part
    text: str
    gradients: Sequence[Gradient]
    examples: Sequence[Demo]


class Outcome(NamedTuple):
    """What came of a step: a changed prompt or none, and what there is to remark."""

    step: Step
    prompt: Prompt | None
    remark: str


class TextGradEditor:
    """Criticises failing answers, and lets textual gradient descent rewrite the parts of the prompt from that.

    Args:
        chat: the LLM that criticises and rewrites.
        scorers: their explanations are the losses, their instructions are among the constraints of every step.
        settings: how many critiques, proposals and demonstrations, how long a prompt may become.
        example_of: the train row of a score, by name.
        progress: told of every answer of the LLM.
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
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], move: EditPrompt, seed: int
    ) -> Edits:
        """Prompts with one part rewritten, or system text and demonstrations together; a remark on what was left.

        Raises:
            LlmUnavailable: the LLM did not answer, or not so far that anything came of it.
        """
        failing = [score for score in evaluation.scores if _lacks(score, move.failures)]
        if not failing:
            lack = "falls short" if move.failures == "any" else f"lacks {move.failures}"
            return Edits(remarks=(f"No train row {lack}, so TextGrad has nothing to learn from",))
        draw = random.Random(seed)
        shown = draw.sample(failing, min(self._settings.critiques, len(failing)))
        parts = PromptParts(prompt, train, self._scorers, self._settings)
        examples = parts.examples([self._example_of(score.example) for score in shown], draw)
        starts = parts.starts(move.parts, examples)
        if not starts:
            return Edits(remarks=("No train row can be shown as a demonstration, so TextGrad has nothing to rewrite",))
        gradients = self.criticise(prompt, tuple(starts), shown)
        steps = _steps(starts, gradients, examples)[: self._settings.proposals]
        found, error = self._together("rewriting the prompt", partial(self._outcome, parts), steps)
        if error and not found:
            raise error
        outcomes, lost = list(found.values()), [f"TextGrad stopped half way: {error}"] if error else []
        return Edits(
            edits=tuple(_edits(parts, outcomes)),
            critiques=tuple(Critique(part=g.part, example=g.example, text=cut(g.text, KEPT)) for g in gradients),
            remarks=tuple(dict.fromkeys([*(one.remark for one in outcomes if one.remark), *lost])),
        )

    def reword(self, hard: Sequence[tuple[Example, ExampleScore]]) -> dict[str, str]:
        """Train questions in other words, by the row's name; those without a usable reply are left out.

        One call a question: the scorers' explanation of the answer is the gradient as it stands. None for a question
        above `prompts.ROOM`. If the LLM is lost on the way, what has come by then is returned.

        Raises:
            LlmUnavailable: the LLM did not answer at all.
        """
        short = [(row, score) for row, score in hard if len(row.question) <= prompts.ROOM]
        found, error = self._together("rewriting questions", self._reworded, short)
        if error and not found:
            raise error
        return {short[place][0].name: text for place, text in found.items() if text}

    def criticise(self, prompt: Prompt, asked: Sequence[Part], shown: Sequence[ExampleScore]) -> list[Gradient]:
        """The gradients of the parts asked for, by one call a row, in the order of the rows. Raises LlmUnavailable."""

        def work(score: ExampleScore) -> list[Gradient]:
            with suppress(Useless):
                return prompts.fitting(partial(self._backward, prompt, asked, self._example_of(score.example), score))
            return []

        found, error = self._together("criticising answers", work, shown)
        if error:
            raise error
        return [gradient for gradients in found.values() for gradient in gradients]

    # --- one row, one step ---

    def _backward(
        self, prompt: Prompt, asked: Sequence[Part], row: Example, score: ExampleScore, room: int
    ) -> list[Gradient]:
        """The gradients of the scorers' explanation, over Variables of its own, so that rows do not mix.

        The library's functions ask once for each part. Answer and faults are the same for all parts: this asks once.
        """

        def backward(backward_engine: Callable[..., str]) -> None:
            question = request(prompt, asked, row, score, room)
            reply = backward_engine(question, system_prompt=prompts.read("critique"))
            for part, text in by_part(reply, asked).items():
                variables[part].gradients.add(_feedback(variables[part], text))

        variables = {part: _variable(text, ROLES[part]) for part, text in as_texts(prompt).items() if part in asked}
        loss = _variable(verdict(score, room), "what the scorers say of an answer", *variables.values())
        loss.set_grad_fn(backward)
        loss.backward(engine=self._complete)
        return [
            Gradient(part, row.name, gradient.value, partial(case, row, score))
            for part, variable in variables.items()
            for gradient in variable.gradients
        ]

    def _outcome(self, parts: PromptParts, step: Step) -> Outcome:
        try:
            if not step.gradients:
                raise UnusableRewrite("no critique asks for a change")
            return Outcome(step, *parts.put(step.part, self._stepped(step)))
        except UnusableRewrite as error:
            return Outcome(step, None, f"TextGrad's {NAMES[step.part]} was left: {error}")

    def _stepped(self, step: Step) -> str:
        constraints = self._constraints(f"step_{step.part}") + self._constraints("step")
        rows = step.part == "demos"  # which are others' words; what stands in the rest of a prompt is meant
        text = prompts.disarmed(step.text) if rows else step.text

        def ask(room: int) -> str:
            told = [(cut(gradient.text, room), gradient.case(room // 2)) for gradient in step.gradients]
            shown = [demo for demo in step.examples if rows and size(demo) <= room]
            examples = [prompts.disarmed(written(shown))] if shown else []
            return self._descend(text, ROLES[step.part], told, constraints, examples)

        return prompts.fitting(ask)

    def _reworded(self, failure: tuple[Example, ExampleScore]) -> str:
        """The question in other words; empty if the reply is of no use."""
        row, score = failure
        question, constraints = prompts.disarmed(row.question), self._constraints("reword")

        def ask(room: int) -> str:
            told = [(verdict(score, room), f"Answer: {prompts.quoted(score.output, room)}")]
            return self._descend(question, QUESTION, told, constraints)

        with suppress(UnusableRewrite):
            text = prompts.fitting(ask)
            return text if text != question and len(text) <= self._settings.max_length else ""
        return ""

    def _descend(
        self,
        text: str,
        role: str,
        gradients: Iterable[tuple[str, str]],
        constraints: list[str],
        examples: Sequence[str] = (),
    ) -> str:
        """The text after one step of textual gradient descent from (feedback, case) pairs. Raises UnusableRewrite."""
        variable = _variable(text, role)
        variable.get_short_value = lambda *_: text  # the library shows only the first and the last ten words
        about = {"response_desc": "answer of the language model", "variable_desc": role}
        cases = {_feedback(variable, feedback): about | {"context": shown} for feedback, shown in gradients}
        variable.gradients, variable.gradients_context = list(cases), cases  # the library's set has no order
        optimizer = library().TextualGradientDescent(
            [variable], engine=self._tagged, constraints=constraints, in_context_examples=list(examples)
        )
        optimizer.step()
        return str(variable.value)

    def _constraints(self, name: str) -> list[str]:
        wanted = " ".join(self._scorers.instructions()) or "They are right."
        most, demos = self._settings.max_length, self._settings.demos
        return prompts.fill(name, wanted=wanted, most=most, demos=demos).splitlines()

    # --- the LLM ---

    def _together(
        self, what: str, work: Callable[[Given], T], given: Sequence[Given]
    ) -> tuple[dict[int, T], LlmUnavailable | None]:
        library()  # imported before many threads would
        return run_parallel(work, given, self._chat, what, self._progress)

    def _complete(self, prompt: str, system_prompt: str) -> str:
        """The engine of critiques, in the shape that the library calls it."""
        return self._chat.complete(system_prompt, prompt)

    def _tagged(self, prompt: str, system_prompt: str) -> str:
        """The engine of steps. The library takes what follows the first tag, though an LLM may only speak of it.

        Raises UnusableRewrite where there is nothing to take.
        """
        try:
            return f"{OPENED}{_tagged(self._chat.complete(system_prompt, prompt, _tagged))}{CLOSED}"
        except Useless as error:
            raise UnusableRewrite(str(error)) from None


@cache
def library() -> Any:
    """textgrad, kept from writing a log of all it is asked, and from fetching a price list when it is imported."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    if "textgrad" in sys.modules or "TEXTGRAD_LOG_DIR" in os.environ:  # somebody has seen to it
        import textgrad

        return textgrad
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TEXTGRAD_LOG_DIR"] = folder
        import textgrad

        del os.environ["TEXTGRAD_LOG_DIR"]
        for handler in textgrad.logger.handlers:
            handler.close()
        textgrad.logger.handlers.clear()
    textgrad.logger.disabled = True
    return textgrad


def _tagged(reply: str) -> str:
    """What stands between the last tags that have something between them. Raises UnusableRewrite."""
    if OPENED not in reply:
        raise UnusableRewrite("the reply had no tags")
    found = TAGGED.findall(reply)
    if not found:
        raise UnusableRewrite("the reply was cut off")
    return str(next((text for text in reversed(found) if text.strip()), ""))


def _variable(text: str, role: str, *predecessors: Any) -> Any:
    return library().Variable(text, predecessors=list(predecessors), role_description=role)


def _feedback(variable: Any, text: str) -> Any:
    return _variable(text, f"feedback to {variable.get_role_description()}")


def _lacks(score: ExampleScore, failures: str) -> bool:
    return {"any": score.reward, "content": score.content, "style": score.style}[failures] < 1


def _steps(texts: Mapping[Part, str], gradients: Sequence[Gradient], examples: Sequence[Demo]) -> list[Step]:
    """A step for each part from all its critiques, and a second one for the system text from half of them."""
    of = {part: [gradient for gradient in gradients if gradient.part == part] for part in texts}
    steps = [Step(part, text, of[part], examples) for part, text in texts.items()]
    system = of.get("system", [])
    return steps + ([Step("system", texts["system"], system[::2], examples)] if len(system) > 1 else [])


def _edits(parts: PromptParts, outcomes: Sequence[Outcome]) -> Iterator[Edit]:
    """The changed prompts; before templates, system text and demonstrations together, which often need each other."""
    made = [(outcome.step, outcome.prompt) for outcome in outcomes if outcome.prompt]
    edits = [
        Edit(prompt=prompt, note=f"the {NAMES[step.part]} rewritten by TextGrad from {len(step.gradients)} critiques")
        for step, prompt in made
    ]
    system, demos = (next((prompt for step, prompt in made if step.part == part), None) for part in ("system", "demos"))
    if system and demos:
        with suppress(UnusableRewrite):
            both = parts.checked(system.model_copy(update={"demos": demos.demos}))
            edits.insert(2, Edit(prompt=both, note="system text and demonstrations rewritten by TextGrad"))
    yield from edits
