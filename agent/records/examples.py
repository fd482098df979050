"""What is asked, and with which words and weights: rows, prompts, and the pair of a prompt and an adapter."""

from typing import Any, Literal, get_args

from pydantic import SerializerFunctionWrapHandler, model_serializer

from agent.records.base import Record

Split = Literal["train", "validation", "test"]
Part = Literal["system", "demos", "questions"]


class Turn(Record):
    """An earlier turn of a conversation that an example continues."""

    role: Literal["user", "assistant"]
    content: str


def split_of(name: str) -> Split:
    """The split of the row with this name."""
    split = name.partition(":")[0]
    assert split in get_args(Split), f"no row is named {name}"
    return split  # type: ignore[return-value]


class Example(Record):
    """A row of a task. `name` is its place, `split:line`, counted from 1.

    `system` is the row's own system text, which follows the prompt's.
    """

    name: str
    question: str
    answer: str
    turns: tuple[Turn, ...] = ()
    system: str = ""

    @model_serializer(mode="wrap")
    def without_a_system_text_it_has_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Ids and digests of rows without one stay what they were before rows could have one."""
        return {name: value for name, value in dump(self).items() if name != "system" or value}

    @property
    def stands_alone(self) -> bool:
        """Whether question and answer are all of it, as in a demonstration."""
        return not (self.turns or self.system)


class Demo(Record):
    """A demonstration: a question and an answer in the wanted form, shown before the real question."""

    question: str
    answer: str


class Prompt(Record):
    """All the words around a question: system text, demonstrations, question template."""

    system: str = ""
    demos: tuple[Demo, ...] = ()
    template: str = "{question}"

    def ask(self, question: str) -> str:
        """The question as the user turn of the template."""
        return self.template.replace("{question}", question)

    @property
    def length(self) -> int:
        """Characters of text that every single question pays for."""
        demos = sum(len(self.ask(demo.question)) + len(demo.answer) for demo in self.demos)
        return len(self.system) + demos + len(self.template)


class Candidate(Record):
    """The pair that is judged, kept and taken back together: a prompt id, and an adapter id or none."""

    prompt: str
    adapter: str | None = None
