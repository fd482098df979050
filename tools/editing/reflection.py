"""The request for a reflection on a part of a prompt, from scored answers that the prompt led to."""

from collections.abc import Sequence
from typing import NamedTuple

from agent import prompts
from agent.records.evaluation import ExampleScore
from agent.records.examples import Demo, Example, Prompt, TextPart
from tools.editing.critique import verdict
from tools.editing.prompt_parts import ROLES, demos_as_text, part_texts, size


class Reflection(NamedTuple):
    """What the LLM is to reflect on.

    `text` is the part's, or what it is to start from; `examples` are such demonstrations as the part may have.
    """

    prompt: Prompt
    part: TextPart
    text: str
    cases: Sequence[tuple[Example, ExampleScore]]
    examples: Sequence[Demo]


def reflection_request(about: Reflection, constraints: Sequence[str], limit: int) -> str:
    """The request, with the right answers where the content is wrong.

    So what is rewritten from it is to be searched for leaks before it is scored.

    Args:
        constraints: what the new text must keep to.
        limit: most characters of each quoted text; of each part of the prompt, four times as many.
    """
    texts = part_texts(about.prompt).items()
    demos = about.part == "demos"  # these repeat rows, whose <<< >>> must not be taken for ours
    shown = prompts.disarmed(demos_as_text(demo for demo in about.examples if demos and size(demo) <= limit))
    return prompts.fill(
        "reflect_rows",
        role=ROLES[about.part],
        parts="\n\n".join(f"{name}: {prompts.quoted(text, 4 * limit) if text else '(none)'}" for name, text in texts),
        text=prompts.disarmed(about.text) if demos else about.text,
        cases="\n\n".join(_case(row, score, limit // 2) for row, score in about.cases),
        constraints="\n".join(constraints),
        examples=f"<EXAMPLES>\n{shown}\n</EXAMPLES>" if shown else "",
    )


def _case(row: Example, score: ExampleScore, limit: int) -> str:
    said = "They are satisfied." if score.reward == 1 else verdict(score, limit, row.answer)
    question, answer = prompts.quoted(row.question, limit), prompts.quoted(score.output, limit)
    return f"Question: {question}\nAnswer: {answer}\nWhat its scorers say:\n{said}"
