"""The small frozen records that pass between the rooms. Ids are hashes of the content they name."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

# Of the records that ledgers and checkpoints hold. Raise it with every change of theirs that an older run, or a run of
# an older version, could not be read with; 0 are runs from before it was counted.
FORMAT = 1

Split = Literal["train", "validation", "test"]
Need = Literal["content", "style", "both"]
Rows = Literal["original", "refined", "both"]
Part = Literal["system", "demos", "questions"]
Role = Literal["planner", "editor", "judge"]


def digest(value: object) -> str:
    """Twelve hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folded(text: str) -> str:
    """The text as it compares: case, white space and ways to encode one letter folded."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


class Record(BaseModel):
    """Frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def id(self) -> str:
        """Content hash: equal records have equal ids, in every process.

        Not cached: `model_copy` would carry the old id into the changed copy.
        """
        return digest(self.model_dump(mode="json"))

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> NoReturn:  # type: ignore[override]
        """Never: LangGraph would build a record of another version half with it, without an error."""
        raise TypeError(f"a {cls.__name__} is made of values that were checked")


# --- what is asked, and with which words ---------------------------------------------------------


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

    `system` is a system text of the row's own, which stands behind the prompt's.
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


# --- what is measured ----------------------------------------------------------------------------


class ExampleScore(Record):
    """One output and its two rewards, each in [0, 1].

    `faults` are the sentences of style scorers that it falls short of, `remarks` a judge's reasons why content does,
    and `praise` its reasons for full marks. `too_long`: under its prompt the row does not fit into the model's window;
    it was not answered, and counts as wrong.
    """

    example: str
    output: str
    content: float
    style: float
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    praise: tuple[str, ...] = ()
    too_long: bool = False

    @property
    def reward(self) -> float:
        """Content × style, in [0, 1]: right *and* as asked."""
        return self.content * self.style

    @property
    def merit(self) -> float:
        """Mean of reward, content and style, in [0, 1].

        The product is flat while one factor is 0; merit sees the progress of the other.
        """
        return (self.reward + self.content + self.style) / 3


class Evaluation(Record):
    """A candidate's scores on rows of one split, in the order of the rows."""

    candidate: Candidate
    split: Split
    scores: tuple[ExampleScore, ...]

    @property
    def reward(self) -> float:
        return fmean(score.reward for score in self.scores)

    @property
    def content(self) -> float:
        return fmean(score.content for score in self.scores)

    @property
    def style(self) -> float:
        return fmean(score.style for score in self.scores)

    @property
    def merit(self) -> float:
        return fmean(score.merit for score in self.scores)

    @property
    def too_long(self) -> int:
        """Rows that could not be answered within the model's window."""
        return sum(score.too_long for score in self.scores)


class Fitting(Record):
    """How a task's rows fit the model, found out at the start of a run; rows.json, so that a resume takes the same.

    `too_long` names the validation and test rows beyond the window under the seed prompt; `left_out` says whether they
    are left out of the run, or count as wrong. `ends` are texts of end-of-turn tokens that are taken off the answers,
    `demo_ends` those taken off the seed prompt's demonstrations; `emptied` names the rows that are left out since
    their answers held nothing else.
    """

    window: int | None = None
    too_long: tuple[str, ...] = ()
    left_out: bool = False
    ends: tuple[str, ...] = ()
    demo_ends: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()


class Measured(Record):
    """All that is known of a candidate on one split, by the row's key: its score, and its reference's NLL.

    The key names the row, its content and the settings that shape an answer; whoever measures makes it.
    """

    candidate: Candidate
    split: Split
    scores: dict[str, ExampleScore] = {}
    nats: dict[str, float | None] = Field(
        {}, description="of the reference in the wanted form, per token; None: it cannot be measured"
    )

    @field_validator("scores", mode="before")
    @classmethod
    def reads_the_lists_of_older_runs(cls, scores: Any) -> Any:
        """Under the row's bare name, which is nobody's key: such scores can be shown, but are measured anew."""
        return {score["example"]: score for score in scores} if isinstance(scores, list) else scores

    @field_validator("nats", mode="before")
    @classmethod
    def leaves_out_the_zeros_of_older_runs(cls, nats: Any) -> Any:
        """There, 0 also stood for a row beyond the model's window: such rows are measured anew."""
        return {key: value for key, value in nats.items() if value != 0} if isinstance(nats, dict) else nats


class ExampleDiagnosis(Record):
    """What one failing example lacks.

    The gaps are in nats per token of the reference: `prompt_gap` is what demonstrations take away,
    `weight_gap` what stays on the answer's own tokens with form and demonstrations given.
    """

    example: str
    need: Need
    prompt_gap: float | None = None
    weight_gap: float | None = None
    chances: dict[Need, float] = Field({}, description="of each need, adding up to 1; empty: the rules decided")
    features: dict[str, float] = Field({}, description="what the chances rest on, by name: see tools/features.py")


class Diagnosis(Record):
    """The failing validation examples, sorted by what they lack. `failing` counts all, `examples` lists the probed.

    `by` says who sorted them: the two rewards alone, rules over the probe, or the model fitted to what edits did.
    """

    failing: int
    total: int
    examples: tuple[ExampleDiagnosis, ...] = ()
    by: Literal["rewards", "rules", "model"] = "rules"

    def share(self, need: Literal["content", "style"]) -> float:
        """Share of *all* rows that lack this (alone or with the other), estimated from those probed."""
        return self.expected(need) + self.expected("both")

    def expected(self, need: Need) -> float:
        """Share of all rows that have just this need, as far as the probed ones tell."""
        if not self.examples:
            return 0.0
        each = [example.chances.get(need, float(example.need == need)) for example in self.examples]
        return fmean(each) * self.failing / self.total

    @property
    def shares(self) -> dict[Need, float]:
        """Of all rows, those that have just this need."""
        return {need: self.expected(need) for need in get_args(Need)}

    @property
    def confidence(self) -> float | None:
        """Mean chance of the likeliest need; None where rules decided, which state none."""
        return _mean([max(example.chances.values()) for example in self.examples if example.chances])

    @property
    def prompt_gap(self) -> float | None:
        return _mean([example.prompt_gap for example in self.examples])

    @property
    def weight_gap(self) -> float | None:
        return _mean([example.weight_gap for example in self.examples])


class Probe(Record):
    """What a failing row looked like when it was probed, and what an edit then did to it.

    `words`: an edit brought its reward to 1. `rules` is what the rules took it to need. `own`: of the very run that
    is to learn from it.
    """

    task: str
    model: str
    pair: str = Field(description="id of the candidate whose failure it is")
    example: str
    features: dict[str, float]
    rules: Need
    words: bool
    own: bool = False


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


class Outlook(Record):
    """What a lever is expected to bring if it is pulled now: one scale for both.

    `gain` is in merit, with the standard deviation `spread`; `cost` in forward passes of a token (`Spend.passes`).
    """

    gain: float
    spread: float
    cost: float

    @property
    def rate(self) -> float:
        """Expected merit gained per million passes."""
        return self.gain / self.cost * 1e6


class LeverSignal(Record):
    """What one lever did when it was last pulled, whether it still pays, and what it promises."""

    rounds: int = 0
    kept: int = 0
    gain: float = 0.0
    fruitless: int = 0
    saturated: bool = False
    outlook: Outlook | None = None


class Signal(Record):
    """The unified monitoring signal over both levers (paper, section on the monitoring signal)."""

    reward: float
    content: float
    style: float
    refined: bool = Field(False, description="whether the best prompt is another than the seed")
    noise: float = Field(description="standard error of the validation reward, in reward units")
    floor: float = Field(0.0, description="the least merit gain that the validation rows can tell from nothing")
    shown: float = Field(0.0, description="share of train answers that have the wanted form as given")
    remade: float = Field(0.0, description="share of train answers that pass once they are put into the wanted form")
    drift: float | None = Field(None, description="nats per token lost on general text, against the bare base")
    loss: float | None = Field(None, description="mean loss of the last LoRA epoch, nats per token")
    loss_drop: float | None = Field(None, description="relative fall of the epoch loss over the last two epochs")
    grad_norm: float | None = Field(None, description="mean gradient norm of the last LoRA epoch, before clipping")
    lora: LeverSignal = LeverSignal()
    edit: LeverSignal = LeverSignal()

    @property
    def teachable(self) -> float:
        """Share of train answers that can teach the wanted form along with what they say."""
        return max(self.shown, self.remade)


# --- what is proposed ----------------------------------------------------------------------------


class Critique(Record):
    """What an editor's LLM said of one failing train row: the textual gradient of a part of the prompt."""

    part: Part
    example: str
    text: str


class Edit(Record):
    """A changed prompt, and a note that says what was changed."""

    prompt: Prompt
    note: str


class Edits(Record):
    """What an editor proposes, the critiques it rests on, and remarks on what came to nothing."""

    edits: tuple[Edit, ...] = ()
    critiques: tuple[Critique, ...] = ()
    remarks: tuple[str, ...] = ()


class Rewrite(Record):
    """A hard train question in other words, with the model's answer to it that passed the scorers.

    `source` is the content hash of the example that it takes the place of, `prompt` the prompt it was answered under.
    """

    source: str
    question: str
    answer: str
    prompt: str
