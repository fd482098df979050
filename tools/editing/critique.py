"""What is asked of the LLM that criticises an answer, and what it said of each part of the prompt."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, get_args

from agent import prompts
from agent.records.evaluation import ExampleScore
from agent.records.examples import Example, Part, Prompt
from tools.editing.prompt_parts import as_texts

NAMES = "|".join(get_args(Part))
SECTION = re.compile(rf"<({NAMES})>(.*?)(?=</?(?:{NAMES})>|\Z)", re.DOTALL)  # a reply may be cut off


class Gradient(NamedTuple):
    """What the critic said of one part because of one row, and the case it spoke of in so many characters a text."""

    part: Part
    example: str
    text: str
    case: Callable[[int], str]


def cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def verdict(score: ExampleScore, room: int, reference: str = "") -> str:
    """The scorers' explanation of a score, and of wrong content the reference, if one is given.

    Every reason is quoted: it may repeat the answer, and a judge's may be what the answer talked it into.
    """
    said = [prompts.quoted(fault, room) for fault in score.faults]
    if score.content < 1:
        said.append(f"The content is {score.content:.0%} right." if score.content else "The content is wrong.")
        said += [prompts.quoted(remark, room) for remark in score.remarks]
        said += [f"The right answer: {prompts.quoted(reference, room)}"] if reference else []
    return "\n".join(said) or "The style is not as wanted."


def case(row: Example, score: ExampleScore, room: int) -> str:
    """A row, its answer and what is wrong with it, but not the reference: this is what a rewriter sees of it."""
    question, answer = prompts.quoted(row.question, room), prompts.quoted(score.output, room)
    return f"{question}\n\nAnswer: {answer}\n\nWhat its scorers say:\n{verdict(score, room)}"


def request(prompt: Prompt, asked: Iterable[Part], row: Example, score: ExampleScore, room: int) -> str:
    """What the critic is asked of a row, for all the parts at once; it sees the whole prompt."""
    return prompts.fill(
        "critique_row",
        parts="\n\n".join(
            f"{part}: {prompts.quoted(text, 4 * room) if text else '(none)'}" for part, text in as_texts(prompt).items()
        ),
        question=prompts.quoted(row.question, room),
        answer=prompts.quoted(score.output, room),
        verdict=verdict(score, room, row.answer),
        asked=", ".join(asked),
    )


def by_part(reply: str, parts: Iterable[Part]) -> dict[Part, str]:
    """The feedback to each part, where there is some; a reply without sections speaks of all of them."""
    sections = {name: text.strip() for name, text in reversed(SECTION.findall(reply))}
    found = {part: sections.get(part, "") if sections else reply.strip() for part in parts}
    return {part: text for part, text in found.items() if text}
