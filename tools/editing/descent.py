"""Textual gradient descent (Yuksekgonul et al. 2024): gradients of texts, and one step. Only this imports textgrad."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from agent.errors import Useless
from agent.protocols import Chat
from tools.editing.prompt_parts import UnusableRewrite

OPENED, CLOSED = "<IMPROVED_VARIABLE>", "</IMPROVED_VARIABLE>"
TAGGED = re.compile(rf"{OPENED}((?:(?!{OPENED}|{CLOSED}).)*){CLOSED}", re.DOTALL)

Name = TypeVar("Name", bound=str)
Variable = Any  # of textgrad, which is imported late and has no types


def text_gradients(
    chat: Chat,
    texts: Mapping[Name, str],
    roles: Mapping[Name, str],
    loss: str,
    critic: tuple[str, str],
    read: Callable[[str], Mapping[Name, str]],
) -> dict[Name, str]:
    """The textual gradients of a loss: the feedback to each text. One call of the LLM criticises all texts.

    (The library's own functions would ask once for each text. Variables are made anew, so that rows do not mix.)

    Args:
        texts: by name.
        roles: what each text is, in words for the LLM.
        loss: what is wrong with the answer that the texts led to.
        critic: the system and the user message of the call.
        read: the feedback in a reply, by name; a text without feedback is missing.

    Returns:
        The feedback by name; a text without feedback is missing.

    Raises:
        LlmUnavailable: the LLM did not answer.
    """
    system, user = critic

    def backward(backward_engine: Callable[..., str]) -> None:
        for name, feedback in read(backward_engine(user, system_prompt=system)).items():
            variables[name].gradients.add(_feedback(variables[name], feedback))

    def engine(prompt: str, system_prompt: str) -> str:
        return chat.complete(system_prompt, prompt)

    variables = {name: _variable(text, roles[name]) for name, text in texts.items()}
    loss_variable = _variable(loss, "what the scorers say of an answer", *variables.values())
    loss_variable.set_grad_fn(backward)
    loss_variable.backward(engine=engine)
    return {name: gradient.value for name, variable in variables.items() for gradient in variable.gradients}


def descend(
    chat: Chat,
    text: str,
    role: str,
    cases: Iterable[tuple[str, str]],
    constraints: Sequence[str],
    examples: Sequence[str] = (),
) -> str:
    """The text after one step of textual gradient descent.

    Args:
        role: what the text is, in words for the LLM.
        cases: (feedback, the case that it is about) pairs.
        constraints: what the new text must keep to.
        examples: of such texts.

    Raises:
        UnusableRewrite: the reply holds no new text.
    """

    def engine(prompt: str, system_prompt: str) -> str:
        # The library takes what follows the first tag, which an LLM may only have mentioned.
        try:
            return f"{OPENED}{last_tagged(chat.complete(system_prompt, prompt, last_tagged))}{CLOSED}"
        except Useless as error:
            raise UnusableRewrite(str(error)) from None

    variable = _variable(text, role)
    variable.get_short_value = lambda *_: text  # the library shows only the first and the last ten words
    about = {"response_desc": "answer of the language model", "variable_desc": role}
    contexts = {_feedback(variable, feedback): about | {"context": case} for feedback, case in cases}
    variable.gradients, variable.gradients_context = list(contexts), contexts  # the library's set has no order
    optimizer = library().TextualGradientDescent(
        [variable], engine=engine, constraints=list(constraints), in_context_examples=list(examples)
    )
    optimizer.step()
    return str(variable.value)


@cache
def library() -> Any:
    """textgrad, kept from logging all requests to disk, and from fetching a price list when it is imported."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    if "textgrad" in sys.modules or "TEXTGRAD_LOG_DIR" in os.environ:  # the user has arranged it
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


def last_tagged(reply: str) -> str:
    """The text between the last tags that have something between them. Raises UnusableRewrite."""
    if OPENED not in reply:
        raise UnusableRewrite("the reply had no tags")
    found = TAGGED.findall(reply)
    if not found:
        raise UnusableRewrite("the reply was cut off")
    return str(next((text for text in reversed(found) if text.strip()), ""))


def _variable(text: str, role: str, *predecessors: Variable) -> Variable:
    return library().Variable(text, predecessors=list(predecessors), role_description=role)


def _feedback(variable: Variable, text: str) -> Variable:
    return _variable(text, f"feedback to {variable.get_role_description()}")
