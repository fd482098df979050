"""What is asked, and with which words and weights: rows, prompts, and the pair of a prompt and an adapter."""

from typing import Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from agent.records.base import Record

Split = Literal["train", "validation", "test"]
TextPart = Literal["system", "demos", "questions"]
Part = Literal["system", "demos", "questions", "retrieval"]
"""What of a prompt can be changed: its texts, and whether few-shot examples are retrieved."""


class Turn(Record):
    """An earlier turn of a conversation that an example continues."""

    role: Literal["user", "assistant"]
    content: str


def split_of(name: str) -> Split:
    """The split of the row with this name."""
    split = name.partition(":")[0]
    assert split in get_args(Split), f"no row is named {name}"
    return split  # type: ignore[return-value]


class Demo(Record):
    """A demonstration: a question and an answer in the wanted form, shown before the real question."""

    question: str
    answer: str


class Example(Record):
    """A row of a task. `name` is its place, `split:line`, counted from 1.

    `system` is the row's own system text, which follows the prompt's. `demos` are the few-shot examples that were
    retrieved for it; they follow the prompt's.
    """

    name: str
    question: str
    answer: str
    turns: tuple[Turn, ...] = ()
    system: str = ""
    demos: tuple[Demo, ...] = ()

    @model_serializer(mode="wrap")
    def without_what_it_has_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Ids and digests of rows without these fields stay what they were before rows could have them."""
        return {name: value for name, value in dump(self).items() if name not in ("system", "demos") or value}

    @property
    def stands_alone(self) -> bool:
        """Whether question and answer are all of it, as in a demonstration."""
        return not (self.turns or self.system)

    @property
    def asked(self) -> "tuple[Example, ...]":
        """Every question of its conversation as it was asked: after the turns before it. The last is its own."""
        earlier = (
            self.model_copy(update={"question": turn.content, "turns": self.turns[:place]})
            for place, turn in enumerate(self.turns)
            if turn.role == "user"
        )
        return (*earlier, self)

    @property
    def asked_anyhow(self) -> "tuple[Example, ...]":
        """The same, and each question alone: what was said before may have nothing to do with it."""
        return (*self.asked, *(each.model_copy(update={"turns": ()}) for each in self.asked))


class Retrieval(Record):
    """For each question, the train rows nearest to it in meaning are shown as few-shot examples."""

    k: int = Field(ge=1, le=16, description="few-shot examples for each question, at most")
    floor: float = Field(0.0, ge=0, le=1, description="least cosine similarity of their questions to the one asked")

    def __str__(self) -> str:
        """What is shown, as in: it shows …"""
        rows = f"the {self.k} nearest train rows as few-shot examples"
        rows = "the nearest train row as a few-shot example" if self.k == 1 else rows
        return f"{rows}, from a similarity of {self.floor:g} on" if self.floor else rows


class Prompt(Record):
    """All the words around a question: system text, demonstrations, question template.

    With `retrieval`, each question gets few-shot examples of its own after the demonstrations.
    """

    system: str = ""
    demos: tuple[Demo, ...] = ()
    template: str = "{question}"
    retrieval: Retrieval | None = None

    @model_serializer(mode="wrap")
    def without_a_retrieval_it_has_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Ids of prompts without one stay what they were before prompts could have one."""
        return {name: value for name, value in dump(self).items() if name != "retrieval" or value}

    def ask(self, question: str) -> str:
        """The question as the user turn of the template."""
        return self.template.replace("{question}", question)

    @property
    def shown(self) -> int:
        """How many few-shot examples a question gets at most, fixed and retrieved ones."""
        return len(self.demos) + (self.retrieval.k if self.retrieval else 0)

    @property
    def bare(self) -> "Prompt":
        """The same without few-shot examples."""
        return self.model_copy(update={"demos": (), "retrieval": None})

    @property
    def length(self) -> int:
        """Characters of text that every single question pays for; retrieved examples have no fixed length."""
        demos = sum(len(self.ask(demo.question)) + len(demo.answer) for demo in self.demos)
        return len(self.system) + demos + len(self.template)

    @property
    def price(self) -> tuple[int, int]:
        """The cheaper of two prompts has the lower one: fewer retrieved examples, then less text.

        Retrieved examples come first: no two questions share them, so each question pays for them alone.
        """
        return self.retrieval.k if self.retrieval else 0, self.length


class Candidate(Record):
    """The pair that is judged, kept and taken back together: a prompt id, and an adapter id or none."""

    prompt: str
    adapter: str | None = None
