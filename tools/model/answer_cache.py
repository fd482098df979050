"""A model whose answers are kept on disk: what one run asked of it, another that asks the same need not compute.

What the model cannot measure (None) is kept too. Answers of older versions, which had 0 and "" in its place, have
other keys and are not found.

A known row costs what it cost when it was computed: an even share of that call. In calls of other rows it would have
taken another share of what the rows have in common, so a charge is exact where runs ask alike, and near it elsewhere.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agent.protocols import Asked, Charge, LanguageModel, Replies, StopEarly
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


Computed = tuple[Sequence[str | None] | Sequence[float | None], Spend]
"""Values of some rows, and what they used up."""


class CachedLanguageModel(LanguageModel):
    """Keeps answers and likelihoods; loads the model behind it only for what is not known.

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

    def generate_each(
        self,
        asked: Sequence[Asked],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> list[tuple[list[str | None], Spend]]:
        """As `LanguageModel.generate_each`.

        Where an answer may stop depends on its reference and on the scorers: it is kept for these only.
        """

        def keys(prompt: Prompt, examples: Sequence[Example]) -> list[str]:
            shared = ["generate or none", self._name, prompt.id, adapter, max_new_tokens]
            ends = [[example.answer, self._scorers] if stop_early else None for example in examples]
            return [digest([*shared, _asked(example), end]) for example, end in zip(examples, ends, strict=True)]

        def compute(missing: Sequence[Sequence[int]]) -> Sequence[tuple[Sequence[str | None], Spend]]:
            rows = [
                Asked(prompt, [examples[place] for place in places])
                for (prompt, examples), places in zip(asked, missing, strict=True)
            ]
            return self._load().generate_each(
                rows, adapter=adapter, max_new_tokens=max_new_tokens, stop_early=stop_early
            )

        answers = self._answers([keys(*each) for each in asked], compute)
        return [([None if value is None else str(value) for value in values], spend) for values, spend in answers]

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

        def compute(missing: Sequence[Sequence[int]]) -> list[tuple[Sequence[float | None], Spend]]:
            [places] = missing
            rows, scored = [examples[place] for place in places], [completions[place] for place in places]
            return [self._load().nll(prompt, rows, scored, adapter=adapter)]

        [(values, spend)] = self._answers([keys], compute)
        return [None if value is None else float(value) for value in values], spend

    def _answers(
        self, asked: Sequence[Sequence[str]], compute: Callable[[Sequence[Sequence[int]]], Sequence[Computed]]
    ) -> list[tuple[list[str | float | None], Spend]]:
        """For each list of keys the kept values, computed where there are none, and what they cost.

        Args:
            compute: given the places of each list that are not known, their values and what they used up.
        """
        known = {
            key: KeptAnswer(**json.loads(reply))
            for key in {key for keys in asked for key in keys}
            if (reply := self._replies.get(key)) is not None
        }
        spends = [self._charged([known[key] for key in keys if key in known]) for keys in asked]
        missing = [[place for place, key in enumerate(keys) if key not in known] for keys in asked]
        if count := sum(map(len, missing)):
            self._load()  # not within the measured time
            began = self._clock()
            computed = compute(missing)
            seconds = (self._clock() - began) / count
            for number, (places, (values, used)) in enumerate(zip(missing, computed, strict=True)):
                shares = [amount / max(1, len(places)) for amount in (used.generated_tokens, used.read_tokens)]
                for place, value in zip(places, values, strict=True):
                    key = asked[number][place]
                    known[key] = KeptAnswer(value, seconds, *shares)
                    self._replies.put(key, json.dumps(known[key]._asdict()))
                spends[number] += used
        return [([known[key].value for key in keys], spend) for keys, spend in zip(asked, spends, strict=True)]

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
