"""A model whose answers are kept on disk: what one run asked of it, another that asks the same need not compute.

What the model cannot measure (None) is kept too. Answers of older versions, which had 0 and "" in its place, stand
under other keys and are not asked for.

Every row is charged what it took when it was computed: an even share of the call. In calls of other rows it would have
taken another share of what the rows have in common, so a charge is exact where runs ask alike, and near it elsewhere.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.protocols import LanguageModel, Replies, StopEarly
from agent.records.base import digest
from agent.records.examples import Example, Prompt


class CachedLanguageModel:
    """Satisfies `agent.protocols.LanguageModel`; loads the model behind it only for what is not known.

    Args:
        load: the model, with its counters `generated_tokens` and `read_tokens`.
        replies: keeps the answers, each with what it cost.
        name: what the model is called, and how it computes: a part of every key.
        clock: seconds, as time.monotonic gives them.
        scorers: the digest of the scorers that settle an answer early: a part of the key of every one that they may.
    """

    def __init__(
        self, load: Callable[[], Any], replies: Replies, name: Sequence[str], clock: Callable[[], float], scorers: str
    ) -> None:
        self._load = load
        self._replies = replies
        self._name = name
        self._clock = clock
        self._scorers = scorers
        self.generated_tokens = 0.0
        self.read_tokens = 0.0
        self.spared_seconds = 0.0  # that known answers took when they were computed

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> list[str | None]:
        """As `LanguageModel.generate`.

        An answer that may end early does so by its reference and by the scorers: it is that row's own, and theirs.
        """
        shared = ["generate or none", self._name, prompt.id, adapter, max_new_tokens]
        ends = [[example.answer, self._scorers] if stop_early else None for example in examples]
        keys = [digest([*shared, _asked(example), end]) for example, end in zip(examples, ends, strict=True)]

        def compute(places: Sequence[int]) -> Sequence[str | None]:
            rows = [examples[place] for place in places]
            model: LanguageModel = self._load()
            return model.generate(prompt, rows, adapter=adapter, max_new_tokens=max_new_tokens, stop_early=stop_early)

        return [None if value is None else str(value) for value in self._answers(keys, compute)]

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> list[float | None]:
        """As `LanguageModel.nll`."""
        shared = ["nll or none", self._name, prompt.id, adapter]
        asked = zip(examples, completions, strict=True)
        keys = [digest([*shared, _asked(example), *completion]) for example, completion in asked]

        def compute(places: Sequence[int]) -> Sequence[float | None]:
            model: LanguageModel = self._load()
            return model.nll(
                prompt, [examples[place] for place in places], [completions[place] for place in places], adapter=adapter
            )

        return [None if value is None else float(value) for value in self._answers(keys, compute)]

    def _answers(
        self, keys: Sequence[str], compute: Callable[[Sequence[int]], Sequence[str | float | None]]
    ) -> list[Any]:
        known = {key: json.loads(reply) for key in set(keys) if (reply := self._replies.get(key)) is not None}
        self.spared_seconds += sum(known[key]["seconds"] for key in keys if key in known)
        missing = [place for place, key in enumerate(keys) if key not in known]
        if missing:
            for key, answer in self._computed([keys[place] for place in missing], lambda: compute(missing)).items():
                known[key] = answer
                self._replies.put(key, json.dumps(answer))
        for key in keys:
            self.generated_tokens += known[key]["generated"]
            self.read_tokens += known[key]["read"]
        return [known[key]["value"] for key in keys]

    def _computed(
        self, keys: Sequence[str], compute: Callable[[], Sequence[str | float | None]]
    ) -> dict[str, dict[str, Any]]:
        """Each answer with an even share of what all of them cost."""
        model = self._load()
        before = self._clock(), model.generated_tokens, model.read_tokens
        values = compute()
        after = self._clock(), model.generated_tokens, model.read_tokens
        names = ("seconds", "generated", "read")
        share = {name: (now - then) / len(keys) for name, now, then in zip(names, after, before, strict=True)}
        return {key: {"value": value, **share} for key, value in zip(keys, values, strict=True)}


def _asked(example: Example) -> Mapping[str, Any]:
    """All of an example that the model sees."""
    return example.model_dump(mode="json", include={"question", "turns", "system"})
