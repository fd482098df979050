"""The small frozen records that pass between the rooms. Ids are hashes of the content they name."""

import hashlib
import json
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Split = Literal["train", "validation", "test"]
Need = Literal["content", "style", "both"]
Rows = Literal["original", "refined", "both"]
Part = Literal["system", "demos"]


def digest(value: object) -> str:
    """Twelve hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Record(BaseModel):
    """Frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def id(self) -> str:
        """Content hash: equal records have equal ids, in every process.

        Not cached: `model_copy` would carry the old id into the changed copy.
        """
        return digest(self.model_dump(mode="json"))


# --- what is asked, and with which words ---------------------------------------------------------


class Turn(Record):
    """An earlier turn of a conversation that an example continues."""

    role: Literal["user", "assistant"]
    content: str


class Example(Record):
    """A row of a task. `name` is its place, `split:line`, counted from 1."""

    name: str
    question: str
    answer: str
    turns: tuple[Turn, ...] = ()


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
    """One output and its two rewards, each in [0, 1]. `faults` are the style scorers' sentences."""

    example: str
    output: str
    content: float
    style: float
    faults: tuple[str, ...] = ()

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


class Measured(Record):
    """All that is known of a candidate on one split, by the row's key: its score, and its reference's NLL.

    The key names the row, its content and the settings that shape an answer; whoever measures makes it.
    """

    candidate: Candidate
    split: Split
    scores: dict[str, ExampleScore] = {}
    nats: dict[str, float] = Field({}, description="of the reference in the wanted form, per token")

    @field_validator("scores", mode="before")
    @classmethod
    def reads_the_lists_of_older_runs(cls, scores: Any) -> Any:
        """Under the row's bare name, which is nobody's key: such scores can be shown, but are measured anew."""
        return {score["example"]: score for score in scores} if isinstance(scores, list) else scores


class ExampleDiagnosis(Record):
    """What one failing example lacks.

    The gaps are in nats per token of the reference: `prompt_gap` is what demonstrations take away,
    `weight_gap` what stays on the answer's own tokens with form and demonstrations given.
    """

    example: str
    need: Need
    prompt_gap: float | None = None
    weight_gap: float | None = None


class Diagnosis(Record):
    """The failing validation examples, sorted by what they lack. `failing` counts all, `examples` lists the probed."""

    failing: int
    total: int
    examples: tuple[ExampleDiagnosis, ...] = ()

    def share(self, need: Literal["content", "style"]) -> float:
        """Share of *all* rows that lack this (alone or with the other), estimated from those probed."""
        if not self.examples:
            return 0.0
        lacking = sum(example.need in (need, "both") for example in self.examples)
        return lacking / len(self.examples) * self.failing / self.total

    @property
    def prompt_gap(self) -> float | None:
        return _mean([example.prompt_gap for example in self.examples])

    @property
    def weight_gap(self) -> float | None:
        return _mean([example.weight_gap for example in self.examples])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


class LeverSignal(Record):
    """What one lever did when it was last pulled, and whether it still pays."""

    rounds: int = 0
    kept: int = 0
    gain: float = 0.0
    fruitless: int = 0
    saturated: bool = False


class Signal(Record):
    """The unified monitoring signal over both levers (paper, section on the monitoring signal)."""

    reward: float
    content: float
    style: float
    refined: bool = Field(False, description="whether the best prompt is another than the seed")
    noise: float = Field(description="standard error of the validation reward, in reward units")
    loss: float | None = Field(None, description="mean loss of the last LoRA epoch, nats per token")
    loss_drop: float | None = Field(None, description="relative fall of the epoch loss over the last two epochs")
    grad_norm: float | None = Field(None, description="mean gradient norm of the last LoRA epoch, before clipping")
    lora: LeverSignal = LeverSignal()
    edit: LeverSignal = LeverSignal()


# --- what is decided -----------------------------------------------------------------------------


class TrainLora(Record):
    """Tune the weights: train a LoRA adapter on train rows. Slow; teaches facts and skills."""

    action: Literal["train_lora"] = "train_lora"
    rows: Rows = Field(
        "original", description="which rows to train on: as given, remade with the refined prompt, or both"
    )
    epochs: int = Field(3, ge=1, le=20)
    learning_rate: float = Field(1e-3, ge=1e-6, le=1e-2)
    rank: int = Field(16, ge=1, le=256)
    fresh: bool = Field(False, description="start a new adapter instead of continuing the present one")


class EditPrompt(Record):
    """Rewrite the words: edit the system text or the demonstrations. Quick and cheap; fixes form and tone."""

    action: Literal["edit_prompt"] = "edit_prompt"
    parts: tuple[Part, ...] = Field(("system", "demos"), min_length=1)


class Rollback(Record):
    """Go back to the pair that stood after an earlier round (0 is the baseline)."""

    action: Literal["rollback"] = "rollback"
    to_round: int = Field(ge=0)


class Stop(Record):
    """End the run with the best pair so far."""

    action: Literal["stop"] = "stop"


Move = Annotated[TrainLora | EditPrompt | Rollback | Stop, Field(discriminator="action")]


class Decision(Record):
    """One move, who chose it, why, and the numbers the reason rests on."""

    move: Move
    reason: str
    numbers: dict[str, float] = {}
    by: Literal["rules", "fixed order", "planner", "user"] = "rules"
    rules_would: str | None = Field(None, description="what the rules would have done, where somebody else decided")


# --- what happened -------------------------------------------------------------------------------


class Spend(Record):
    """What has been used up. Seconds are wall-clock inside steps; tokens are forward tokens."""

    seconds: float = 0.0
    train_tokens: int = 0
    generated_tokens: int = 0
    llm_tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(**{name: getattr(self, name) + getattr(other, name) for name in Spend.model_fields})

    def __sub__(self, other: "Spend") -> "Spend":
        return Spend(**{name: getattr(self, name) - getattr(other, name) for name in Spend.model_fields})


class Trial(Record):
    """What a lever brought: the changed pair (or none, with the reason in `note`), and what it cost."""

    candidate: Candidate | None
    note: str
    loss: float | None = None
    loss_drop: float | None = None
    grad_norm: float | None = None
    proposals: tuple["Proposal", ...] = ()
    spend: Spend = Spend()


class Proposal(Record):
    """One edit that was scored on the minibatch, or on so many of its rows as it took to see that it loses."""

    prompt: str
    note: str
    merit: float | None = None
    rows: int = Field(0, description="on which the merit was measured; 0 in ledgers that did not count them")


class Verdict(Record):
    """The gate's word on a trial. Rewards are validation means of the best pair before and of the trial."""

    kept: bool
    reason: str
    before: float
    after: float
    p_value: float = Field(description="one-sided, paired sign-flip test of the deciding difference")
    measure: Literal["reward", "merit", "likelihood"] = Field("reward", description="whose difference decided")

    @property
    def gain(self) -> float:
        return self.after - self.before


class Round(Record):
    """One row of the ledger: what was seen, decided, done, judged, and the best pair after it."""

    number: int
    signal: Signal
    diagnosis: Diagnosis
    decision: Decision
    trial: Trial
    verdict: Verdict
    best: Candidate
    reward: float = Field(description="validation reward of `best`")
    spend: Spend = Field(description="of the run so far, this round included")


class Baseline(Record):
    """Row 0 of the ledger: the seed prompt's scores, and what memory recalled."""

    number: Literal[0] = 0
    seed: Candidate
    seed_reward: float
    recalled: tuple[Proposal, ...] = Field((), description="the seed and what memory recalled, as compared; else empty")
    best: Candidate
    reward: float
    content: float
    style: float
    note: str
    spend: Spend


class SplitResult(Record):
    """A mean reward on the sealed test rows with its 95 % bootstrap interval, and the two factors."""

    candidate: Candidate
    reward: float
    low: float
    high: float
    content: float
    style: float
    rows: int


class Outcome(Record):
    """The end of a run: why it stopped, and both pairs on the test split, opened this once."""

    stopped: str
    best: Candidate
    baseline_test: SplitResult
    best_test: SplitResult
    p_value: float
    spend: Spend
