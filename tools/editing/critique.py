"""The request for a critique of an answer, and the feedback to each part of the prompt in the reply."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, get_args

from agent import prompts
from agent.records.evaluation import ExampleScore
from agent.records.examples import Example, Prompt, TextPart
from tools.editing.prompt_parts import part_texts

NAMES = "|".join(get_args(TextPart))
KEPT = 600  # characters of a critique in the ledger
SECTION = re.compile(rf"<({NAMES})>(.*?)(?=</?(?:{NAMES})>|\Z)", re.DOTALL)  # a reply may be cut off


class PartGradient(NamedTuple):
    """Feedback to one part of the prompt because of one row. `case(limit)`: the row and its answer, as text."""

    part: TextPart
    example: str
    text: str
    case: Callable[[int], str]


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def verdict(score: ExampleScore, limit: int, reference: str = "") -> str:
    """The scorers' explanation of a score; with a reference, also the right answer where the content is wrong.

    Every reason is quoted: it may repeat the answer, and an answer may have talked a judge into its reason.

    Args:
        limit: most characters of each quoted text.
    """
    lines = [prompts.quoted(fault, limit) for fault in score.faults]
    if score.content < 1:
        lines.append(f"The content is {score.content:.0%} right." if score.content else "The content is wrong.")
        lines += [prompts.quoted(remark, limit) for remark in score.remarks]
        lines += [f"The right answer: {prompts.quoted(reference, limit)}"] if reference else []
    return "\n".join(lines) or "The style is not as wanted."


def describe_case(row: Example, score: ExampleScore, limit: int) -> str:
    """A row, its answer and what is wrong with it, for a rewriter, which must not see the reference.

    Args:
        limit: most characters of each quoted text.
    """
    question, answer = prompts.quoted(row.question, limit), prompts.quoted(score.output, limit)
    return f"{question}\n\nAnswer: {answer}\n\nWhat its scorers say:\n{verdict(score, limit)}"


def request(prompt: Prompt, parts: Iterable[TextPart], row: Example, score: ExampleScore, limit: int) -> str:
    """The request for a critique of one row, which is about these parts; the critic sees the whole prompt.

    Args:
        limit: most characters of each quoted text; of each part of the prompt, four times as many.
    """
    return prompts.fill(
        "critique_row",
        parts="\n\n".join(
            f"{part}: {prompts.quoted(text, 4 * limit) if text else '(none)'}"
            for part, text in part_texts(prompt).items()
        ),
        question=prompts.quoted(row.question, limit),
        answer=prompts.quoted(score.output, limit),
        verdict=verdict(score, limit, row.answer),
        asked=", ".join(parts),
    )


def feedback_by_part(reply: str, parts: Iterable[TextPart]) -> dict[TextPart, str]:
    """The feedback to each part, where there is any; a reply without sections is about all of them."""
    sections = {name: text.strip() for name, text in reversed(SECTION.findall(reply))}
    found = {part: sections.get(part, "") if sections else reply.strip() for part in parts}
    return {part: text for part, text in found.items() if text}
