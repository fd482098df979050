"""What is measured and diagnosed before a decision."""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal, get_args

from pydantic import Field

from agent.records.base import Record

Need = Literal["content", "style", "both"]

# Nats per token of the answer: small models need up to 4.8 for what they know, and from 4.5 for what they cannot know.
KNOWN_BELOW = 4.7
# Luck from which on sentences about rewards name it.
LUCK_WORTH_SAYING = 0.1


def knowledge(right: float, luck: float) -> float:
    """The share of rows whose answer is known, of those of which this share is right: the others are guessed.

    If the share k is known, and a guess is right on the share g of the others, then k + (1 - k)·g are right. This is
    the correction for guessing of multiple-choice tests.

    Args:
        luck: g; taken as what one answer to every question earns, the most that a guess without knowledge can.
    """
    return max(0.0, (right - luck) / (1 - luck)) if luck < 1 else 0.0


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
    features: dict[str, float] = Field(
        {}, description="what the chances rest on, by name; see tools.diagnosis.features"
    )


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
    def words_chance(self) -> float:
        """Mean chance that an edit mends a failing row, as far as the probed ones tell; 0 where none fails."""
        return self.expected("style") * self.total / self.failing if self.failing else 0.0

    @property
    def prompt_gap(self) -> float | None:
        return _mean([example.prompt_gap for example in self.examples])

    @property
    def weight_gap(self) -> float | None:
        return _mean([example.weight_gap for example in self.examples])


class Probe(Record):
    """What a failing row looked like when it was probed, and what an edit then did to it.

    `words`: an edit raised its reward to 1. `rules` is the need that the rules found. `own`: it is from the run that
    learns from it. `luck`: the chance of a guess on this row, where features and `words` are to be taken without it.
    """

    task: str
    model: str
    pair: str = Field(description="id of the candidate whose failure it is")
    example: str
    features: dict[str, float]
    rules: Need
    words: bool
    own: bool = False
    luck: float = 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


class Outlook(Record):
    """What a lever is expected to bring if it is pulled now: one scale for both.

    `gain` is in merit, with the standard deviation `spread`; `cost` in `Spend.forward_tokens`. The gain is what remains
    of `merit` after the price of the drift that is expected.
    """

    gain: float
    spread: float
    cost: float
    drift: float = Field(0.0, description="expected rise, in nats per token lost on general text")
    price: float = Field(0.0, description="merit taken off the gain for a nat per token of drift")

    @property
    def merit(self) -> float:
        """Merit that it is expected to bring on the task, whatever is forgotten elsewhere."""
        return self.gain + self.price * self.drift

    @property
    def rate(self) -> float:
        """Expected merit gained per million forward tokens."""
        return self.gain / self.cost * 1e6


class LeverSignal(Record):
    """What one lever did when it was last pulled, whether it still pays, and what it promises."""

    rounds: int = 0
    kept: int = 0
    gain: float = 0.0
    fruitless: int = 0
    forgot: int = Field(0, description="tries since anything was kept that only what they forget took back")
    saturated: bool = False
    outlook: Outlook | None = None

    @property
    def discarded(self) -> int:
        """Tries since anything was kept, whatever took them back."""
        return self.fruitless + self.forgot


class Signal(Record):
    """The unified monitoring signal over both levers (paper, section on the monitoring signal)."""

    reward: float
    content: float
    style: float
    refined: bool = Field(False, description="whether the best prompt is another than the seed")
    few_shot: bool = Field(False, description="whether the best prompt shows few-shot examples")
    luck: float = Field(0.0, description="share of rows that are right by luck: what one answer to all of them earns")
    noise: float = Field(description="standard error of the validation reward, in reward units")
    floor: float = Field(0.0, description="the least merit gain that the validation rows can tell from nothing")
    shown: float = Field(0.0, description="share of train answers that have the wanted form as given")
    remade: float = Field(0.0, description="share of train answers that pass once they are put into the wanted form")
    drift: float | None = Field(
        None, description="nats per token lost on general text, against the bare base; 0: bare; None: not measured"
    )
    loss: float | None = Field(None, description="mean loss of the last LoRA epoch, nats per token")
    loss_drop: float | None = Field(None, description="relative fall of the epoch loss over the last two epochs")
    grad_norm: float | None = Field(None, description="mean gradient norm of the last LoRA epoch, before clipping")
    grad_drop: float | None = Field(
        None, description="relative fall of that norm from the first epoch of the training to the last"
    )
    lora: LeverSignal = LeverSignal()
    edit: LeverSignal = LeverSignal()

    @property
    def merit(self) -> float:
        """Mean of reward, content and style, rounded: equal scores are equal in whatever order they were added."""
        return round((self.reward + self.content + self.style) / 3, 9)

    @property
    def known(self) -> float:
        """Content beyond luck."""
        return knowledge(self.content, self.luck)

    @property
    def teachable(self) -> float:
        """Share of train answers that can teach the wanted form along with what they say."""
        return max(self.shown, self.remade)
