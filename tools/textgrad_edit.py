"""Rewriting words with an LLM: the TextGrad editor (Yuksekgonul et al. 2024). The only place that imports textgrad."""

import os
import random
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from agent import prompts
from agent.config import Editing
from agent.errors import LlmUnavailable
from agent.moves import EditPrompt
from agent.protocols import Chat, Scorers
from agent.records import Edit, Edits, Evaluation, Example, ExampleScore, Prompt

CRITIQUED = 4
ROLE = "system prompt of a small language model"


class TextGradEditor:
    """Critiques failing answers, and lets textual gradient descent rewrite the system text from the critiques.

    Args:
        chat: the LLM that criticises and rewrites.
        scorers: their explanations are part of every loss, their instructions are the constraints of the step.
        settings: how long a prompt may become.
        question_of: the example of a score, by name, so that the critic sees what was asked.
    """

    name = "textgrad"

    def __init__(self, chat: Chat, scorers: Scorers, settings: Editing, question_of: Callable[[str], Example]) -> None:
        self._chat = chat
        self._scorers = scorers
        self._settings = settings
        self._question_of = question_of

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], move: EditPrompt, seed: int
    ) -> Edits:
        """One prompt with a rewritten system text; none if `parts` leaves the system out or the reply is unusable.

        Raises:
            LlmUnavailable: the LLM did not answer.
        """
        failing = [score for score in evaluation.scores if score.reward < 1]
        if "system" not in move.parts or not failing:
            return Edits()
        shown = random.Random(seed).sample(failing, min(CRITIQUED, len(failing)))
        engine = _engine(self._chat)
        rewritten = self._step(prompt.system, [self._gradient(prompt.system, score, engine) for score in shown], engine)
        edit = prompt.model_copy(update={"system": rewritten})
        if not rewritten or edit == prompt or edit.length > self._settings.max_length:
            return Edits()
        note = f"the system text rewritten by TextGrad from {len(shown)} critiques"
        return Edits(edits=(Edit(prompt=edit, note=note),))

    def _gradient(self, system: str, score: ExampleScore, engine: Any) -> Any:
        """The textual gradient of one failing answer; a Variable of its own, so that critiques do not mix."""
        textgrad = _textgrad()
        variable = textgrad.Variable(system, requires_grad=True, role_description=ROLE)
        loss = textgrad.TextLoss(f"{prompts.read('critique')}\n\n{self._case(score)}", engine=engine)(variable)
        loss.backward(engine=engine)
        return next(iter(variable.gradients))

    def _case(self, score: ExampleScore) -> str:
        """What the critic sees of a row: quoted and cut, without the reference answer."""
        faults = " ".join(score.faults) or ("The content was wrong." if score.content < 1 else "")
        question = self._question_of(score.example).question
        return f"Question: <<<{question[:600]}>>>\nAnswer: <<<{score.output[:600]}>>>\nFaults: {faults}"

    def _step(self, system: str, gradients: list[Any], engine: Any) -> str:
        textgrad = _textgrad()
        variable = textgrad.Variable(system, requires_grad=True, role_description=ROLE)
        # The library shows the optimizer only the first and last ten words, and keeps gradients in an unordered set.
        variable.get_short_value = lambda *_: system
        variable.gradients = sorted(gradients, key=lambda gradient: str(gradient.value))
        constraints = [*self._scorers.instructions(), f"At most {self._settings.max_length} characters."]
        optimizer = textgrad.TextualGradientDescent([variable], engine=engine, constraints=constraints)
        try:
            optimizer.step()
        except IndexError:  # the reply lacks the library's tags: the prompt stays as it is
            return ""
        return str(variable.value).strip()


@cache
def _textgrad() -> Any:
    """The library, kept from writing ./logs and from fetching a price list when it is imported."""
    os.environ.setdefault("TEXTGRAD_LOG_DIR", tempfile.mkdtemp(prefix="textgrad-"))
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import textgrad

    return textgrad


def _engine(chat: Chat) -> Any:
    """Our LLM client in the shape that textgrad wants."""
    _textgrad()
    from textgrad.engine import EngineLM

    class Engine(EngineLM):  # type: ignore[misc]
        model_string = "nesylora"

        def generate(self, prompt: str, system_prompt: str | None = None, **_: object) -> str:
            return chat.complete(system_prompt or self.system_prompt, prompt)

        def __call__(self, prompt: str, system_prompt: str | None = None, **_: object) -> str:
            return self.generate(prompt, system_prompt)

    return Engine()


class EditorChain:
    """The first editor, and the second where the first has no proposal or its LLM does not answer."""

    def __init__(self, first: TextGradEditor, second: Any) -> None:
        self.name = first.name
        self._first = first
        self._second = second

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], move: EditPrompt, seed: int
    ) -> Edits:
        """The first's proposals before the second's, so that both are compared on the minibatch."""
        try:
            own = self._first.propose(prompt, evaluation, train, move, seed)
        except LlmUnavailable as error:
            own = Edits(remarks=(f"TextGrad was not used: {error}",))
        others = self._second.propose(prompt, evaluation, train, move, seed)
        return own.model_copy(update={"edits": (*own.edits, *others.edits)})
