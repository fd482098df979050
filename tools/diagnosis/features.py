"""What a failing example looks like to the classifier: rewards, likelihoods, trial answers and nearness.

A feature, by name, and its unit:

- `content`, `style`: the two rewards of the pair's own answer, in [0, 1].
- `plain`: mean NLL of the reference as it stands, under the present prompt; nats per token.
- `whole`, `form`: the same of the reference in the wanted form, and of the form's own tokens before the answer (0 where
  it has none).
- `shown_whole`, `shown_answer`: the same with two demonstrations in the prompt, of the reference in the wanted form and
  of the answer's own tokens once the form is said.
- `alike`: of the pair's own answer and those under other demonstrations, the share that begin with the same word.
- `right`, `formed`: share of the answers under other demonstrations that are right and as asked; that are as asked.
- `demos`: demonstrations in the prompt, 0 to 1 for up to four. `tuned`: 1 with an adapter, else 0.
- `near`: cosine similarity of the question to the nearest train question.
- `taught`: the same to the nearest train question that has this very answer; 0 where none has.
- `common`: share of the train rows that have this very answer.

`near` and `taught` are missing where texts cannot be embedded. A likelihood, or what trial answers tell, is missing
where it cannot be measured: the row does not fit into the model's window, or there is nothing to score.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from agent.protocols import Embed, LanguageModel, Scorers
from agent.records.base import folded
from agent.records.evaluation import ExampleScore
from agent.records.examples import Demo, Example, Prompt

SHOWN = 2  # demonstrations of a draw
DRAWS = 2
ANSWER_TOKENS = 16  # of a trial answer at most; the form and the gist of it are there by then
MANY_DEMOS = 4
COMPARED = 1000  # train questions that are embedded

MEASURED = frozenset({"whole", "shown_whole", "shown_answer", "alike", "right", "formed"})

Features = dict[str, float]


class Probing:
    """Asks the model about failing examples: likelihoods in two calls, and a short answer for each draw.

    Args:
        embed: see `agent.protocols.Embed`; None: nearness is left out.
        max_new_tokens: of an answer, as the task allows.
    """

    def __init__(
        self,
        model: LanguageModel,
        scorers: Scorers,
        train: Sequence[Example],
        embed: Embed | None = None,
        max_new_tokens: int = ANSWER_TOKENS,
    ) -> None:
        self._model = model
        self._scorers = scorers
        self._train = train
        self._embed = embed
        self._new = min(max_new_tokens, ANSWER_TOKENS)

    def features(
        self,
        rows: Sequence[tuple[Example, ExampleScore]],
        prompt: Prompt,
        adapter: str | None,
        seed: int,
        thorough: bool = False,
    ) -> list[Features]:
        """Of each failing row with its score, under this pair. Demonstrations are drawn by the seed.

        Args:
            thorough: `plain` and `form`, too. They cost passes and have not made the chances better.
        """
        if not rows:
            return []
        examples = [example for example, _ in rows]
        bare = self._likelihoods(prompt, examples, adapter, ("plain", "whole", "form") if thorough else ("whole",))
        taught = self._with_demos(prompt, seed)
        told = self._likelihoods(taught, examples, adapter, ("whole", "answer"))
        told = [{f"shown_{name}": value for name, value in one.items()} for one in told]
        state = {"demos": min(1.0, len(prompt.demos) / MANY_DEMOS), "tuned": float(adapter is not None)}
        found = zip(rows, bare, told, self._tried(rows, prompt, adapter, seed), self._nearness(examples), strict=True)
        return [
            {"content": score.content, "style": score.style, **one, **more, **tried, **near, **state}
            for (_, score), one, more, tried, near in found
        ]

    # --- likelihoods ---

    def _likelihoods(
        self, prompt: Prompt, examples: Sequence[Example], adapter: str | None, names: Sequence[str]
    ) -> list[Features]:
        """NLL of these parts of each reference, in one call. What is the same text is asked once.

        What was not measured is left out; only a form without tokens of its own has 0.
        """
        all_parts = [_parts(self._scorers.show(example.answer), example.answer) for example in examples]
        wanted = [{name: parts[name] for name in names} for parts in all_parts]
        asked = [
            (place, part)
            for place, parts in enumerate(wanted)
            for part in dict.fromkeys(part for part in parts.values() if part[1])
        ]
        values, _ = self._model.nll(
            prompt, [examples[place] for place, _ in asked], [part for _, part in asked], adapter=adapter
        )
        known = dict(zip(asked, values, strict=True))
        found = [
            {name: known.get((place, part), 0.0 if name == "form" else None) for name, part in parts.items()}
            for place, parts in enumerate(wanted)
        ]
        return [{name: value for name, value in parts.items() if value is not None} for parts in found]

    def _with_demos(self, prompt: Prompt, seed: int) -> Prompt:
        """The prompt with two demonstrations in the wanted form; as it is, where it has as many already."""
        if len(prompt.demos) >= SHOWN:
            return prompt
        return next(iter(self._drawn(prompt, seed)), prompt)

    def _drawn(self, prompt: Prompt, seed: int) -> list[Prompt]:
        """The prompt with other demonstrations in place of its own: a prompt for each draw, without a row twice."""
        if len(self._train) <= SHOWN:
            return []
        rows = random.Random(seed).sample(list(self._train), min(len(self._train), SHOWN * DRAWS))
        draws = [rows[start : start + SHOWN] for start in range(0, len(rows), SHOWN)]
        return [
            prompt.model_copy(
                update={
                    "demos": tuple(Demo(question=row.question, answer=self._scorers.show(row.answer)) for row in draw)
                }
            )
            for draw in draws
        ]

    # --- trial answers ---

    def _tried(
        self, rows: Sequence[tuple[Example, ExampleScore]], prompt: Prompt, adapter: str | None, seed: int
    ) -> list[Features]:
        examples = [example for example, _ in rows]
        draws = [
            self._model.generate(drawn, examples, adapter=adapter, max_new_tokens=self._new)[0]
            for drawn in self._drawn(prompt, seed)
        ]
        answers = zip(*draws, strict=True) if draws else [()] * len(rows)
        return [self._compared(example, score, given) for (example, score), given in zip(rows, answers, strict=True)]

    def _compared(self, example: Example, score: ExampleScore, answers: Sequence[str | None]) -> Features:
        outputs = [answer for answer in answers if answer is not None]
        if answers and not outputs:
            return {}
        words = Counter(_first_word(text) for text in (score.output, *outputs))
        passed = [self._scorers.passes(output, example) for output in outputs]
        formed = [not self._scorers.faults(output) for output in outputs]
        return {
            "alike": max(words.values()) / words.total(),
            "right": sum(passed) / max(1, len(passed)),
            "formed": sum(formed) / max(1, len(formed)),
        }

    # --- nearness to what could be trained on ---

    def _nearness(self, examples: Sequence[Example]) -> list[Features]:
        answers = [folded(row.answer) for row in self._train]
        common = [{"common": answers.count(folded(example.answer)) / max(1, len(answers))} for example in examples]
        if self._embed is None or not self._train:
            return common
        asked = self._embed([example.question for example in examples])
        alike = [[_dot(question, other) for other in self._vectors] for question in asked]
        return [
            one | _nearest(near, [answer == folded(example.answer) for answer in answers[:COMPARED]])
            for one, near, example in zip(common, alike, examples, strict=True)
        ]

    @cached_property
    def _vectors(self) -> list[list[float]]:
        assert self._embed is not None, "asked for only where texts can be embedded"
        return self._embed([row.question for row in self._train[:COMPARED]])


def is_whole(features: Mapping[str, float]) -> bool:
    """Whether all that the model is asked about a row could be measured: others may learn from such rows only."""
    return features.keys() >= MEASURED


def _nearest(near: Sequence[float], same: Sequence[bool]) -> Features:
    taught = [value for value, is_same in zip(near, same, strict=True) if is_same]
    return {"near": max(near), "taught": max(taught, default=0.0)}


def _parts(shown: str, answer: str) -> dict[str, tuple[str, str]]:
    """What is to be scored, by name, as (given, scored). Where a short answer stands in its form, the last counts."""
    at = shown.rfind(answer)
    form, text = (shown[:at], answer) if at >= 0 else ("", shown)
    return {"plain": ("", answer), "whole": ("", shown), "form": ("", form), "answer": (form, text)}


def _first_word(text: str) -> str:
    return next(iter(folded(text).split()), "")


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
