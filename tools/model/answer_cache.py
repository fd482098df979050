"""A model whose answers are kept on disk: what one run asked of it, another that asks the same need not compute.

What the model cannot measure (None) is kept too. Answers of older versions, which had 0 and "" in its place, have
other keys and are not found.

A known row costs what it cost when it was computed: an even share of that call. In calls of other rows it would have
taken another share of what the rows have in common, so a charge is exact where runs ask alike, and near it elsewhere.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agent.protocols import Charge, LanguageModel, Replies, StopEarly
from agent.records.base import digest
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend


class KeptAnswer(NamedTuple):
    """A completion or its mean NLL, as it is kept on disk, with its share of what the call took when it was computed.

    Shares are fractions: seconds, generated tokens, read tokens.
    """

    value: str | float | None
    seconds: float
    generated: float
    read: float


class CachedLanguageModel:
    """Satisfies `agent.protocols.LanguageModel`; loads the model behind it only for what is not known.

    Args:
        load: the model. It charges by itself what it computes.
        replies: keeps the answers, each with what it cost.
        name: what the model is called, and how it computes: a part of every key.
        clock: seconds, as time.monotonic gives them.
        scorers: digest of the scorers that allow an answer to stop early: a part of the key of every one that may.
        charge: told what known answers cost.
    """

    def __init__(
        self,
        load: Callable[[], LanguageModel],
        replies: Replies,
        name: Sequence[str],
        clock: Callable[[], float],
        scorers: str,
        charge: Charge = lambda _: None,
    ) -> None:
        self._load = load
        self._replies = replies
        self._name = name
        self._clock = clock
        self._scorers = scorers
        self._charge = charge
        self._generated = self._read = 0.0  # tokens of known answers so far, with the fractions not charged yet

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> tuple[list[str | None], Spend]:
        """As `LanguageModel.generate`.

        Where an answer may stop depends on its reference and on the scorers: it is kept for these only.
        """
        shared = ["generate or none", self._name, prompt.id, adapter, max_new_tokens]
        ends = [[example.answer, self._scorers] if stop_early else None for example in examples]
        keys = [digest([*shared, _asked(example), end]) for example, end in zip(examples, ends, strict=True)]

        def compute(places: Sequence[int]) -> tuple[Sequence[str | None], Spend]:
            rows = [examples[place] for place in places]
            return self._load().generate(
                prompt, rows, adapter=adapter, max_new_tokens=max_new_tokens, stop_early=stop_early
            )

        values, spend = self._answers(keys, compute)
        return [None if value is None else str(value) for value in values], spend

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> tuple[list[float | None], Spend]:
        """As `LanguageModel.nll`."""
        shared = ["nll or none", self._name, prompt.id, adapter]
        asked = zip(examples, completions, strict=True)
        keys = [digest([*shared, _asked(example), *completion]) for example, completion in asked]

        def compute(places: Sequence[int]) -> tuple[Sequence[float | None], Spend]:
            rows, scored = [examples[place] for place in places], [completions[place] for place in places]
            return self._load().nll(prompt, rows, scored, adapter=adapter)

        values, spend = self._answers(keys, compute)
        return [None if value is None else float(value) for value in values], spend

    def _answers(
        self, keys: Sequence[str], compute: Callable[[Sequence[int]], tuple[Sequence[str | float | None], Spend]]
    ) -> tuple[list[str | float | None], Spend]:
        """The kept values of these keys, computed where there are none, and what they cost."""
        known = {
            key: KeptAnswer(**json.loads(reply)) for key in set(keys) if (reply := self._replies.get(key)) is not None
        }
        spend = self._charged([known[key] for key in keys if key in known])
        missing = [place for place, key in enumerate(keys) if key not in known]
        if missing:
            self._load()  # not within the measured time
            began = self._clock()
            values, used = compute(missing)
            total = (self._clock() - began, used.generated_tokens, used.read_tokens)
            share = [amount / len(missing) for amount in total]
            computed = {keys[place]: KeptAnswer(value, *share) for place, value in zip(missing, values, strict=True)}
            for key, answer in computed.items():
                self._replies.put(key, json.dumps(answer._asdict()))
            known |= computed
            spend += used
        return [known[key].value for key in keys], spend

    def _charged(self, answers: Sequence[KeptAnswer]) -> Spend:
        """Charge what known answers cost. Tokens are whole numbers: what is rounded off is charged with later ones."""
        generated, read = round(self._generated), round(self._read)
        self._generated += sum(answer.generated for answer in answers)
        self._read += sum(answer.read for answer in answers)
        spend = Spend(
            seconds=sum(answer.seconds for answer in answers),
            generated_tokens=round(self._generated) - generated,
            read_tokens=round(self._read) - read,
        )
        self._charge(spend)
        return spend


def _asked(example: Example) -> Mapping[str, Any]:
    """All of an example that the model sees."""
    return example.model_dump(mode="json", include={"question", "turns", "system", "demos"})
