"""The features of a failing example: what the classifier looks at.

| feature        | unit           | what it is |
|----------------|----------------|------------|
| `content`      | 0 to 1         | the reward for the content of the pair's own answer |
| `style`        | 0 to 1         | the reward for its style |
| `plain`        | nats per token | mean NLL of the reference as it stands, under the present prompt |
| `whole`        | nats per token | the same, of the reference in the wanted form |
| `form`         | nats per token | the same, of the form's own tokens before the answer; 0 without such tokens |
| `shown_whole`  | nats per token | `whole`, with two few-shot examples in the prompt |
| `shown_answer` | nats per token | the answer's own tokens after the form, with two few-shot examples in the prompt |
| `alike`        | share, 0 to 1  | of its answer and the trial answers, those that begin with the same word |
| `right`        | share, 0 to 1  | of the trial answers, those with full content and style |
| `formed`       | share, 0 to 1  | of the trial answers, those with full style |
| `near_right`   | 0 or 1         | whether the trial answer under the nearest train rows has full content and style |
| `demos`        | 0 to 1         | demonstrations, retrieved ones as well, 1 for four or more |
| `tuned`        | 0 or 1         | 1 with an adapter |
| `near`         | cosine         | similarity of the question to the nearest train question |
| `taught`       | cosine         | the same, to the nearest train question with the same answer; 0 without one |
| `common`       | share, 0 to 1  | of the train rows, those with the same answer |

The few-shot examples are the nearest train rows, where they can be retrieved, and drawn ones elsewhere. Trial answers
are short answers under the nearest and under drawn rows. `near`, `taught` and `near_right` are missing where texts
cannot be embedded. A feature that cannot be measured is missing too: the row does not fit into the model's
window, or there is nothing to score.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from agent.protocols import Embed, LanguageModel, Scorers
from agent.records.base import folded
from agent.records.evaluation import ExampleScore
from agent.records.examples import Demo, Example, Prompt, Retrieval

SHOWN = 2  # demonstrations of a trial
TRIALS = 2
ANSWER_TOKENS = 16  # of a trial answer at most: enough for its form and its main content
MANY_DEMOS = 4
COMPARED = 1000  # train questions that are embedded

MEASURED = frozenset({"whole", "shown_whole", "shown_answer", "alike", "right", "formed"})

Features = dict[str, float]


class FeatureExtractor:
    """Measures the features of failing examples: likelihoods in two calls of the model, and one call for each trial.

    Args:
        train: the rows that demonstrations are drawn from, and that questions are compared with.
        embed: see `agent.protocols.Embed`; None: `near` and `taught` are left out.
        max_new_tokens: of an answer, as the task allows; a trial answer has at most `ANSWER_TOKENS`.
        retrieves: whether the model answers prompts that retrieve.
    """

    def __init__(
        self,
        model: LanguageModel,
        scorers: Scorers,
        train: Sequence[Example],
        embed: Embed | None = None,
        max_new_tokens: int = ANSWER_TOKENS,
        retrieves: bool = False,
    ) -> None:
        self._model = model
        self._scorers = scorers
        self._train = train
        self._embed = embed
        self._max_new_tokens = min(max_new_tokens, ANSWER_TOKENS)
        self._retrieves = retrieves

    def features(
        self,
        rows: Sequence[tuple[Example, ExampleScore]],
        prompt: Prompt,
        adapter: str | None,
        seed: int,
        thorough: bool = False,
    ) -> list[Features]:
        """The features of each failing row, under this pair of prompt and adapter.

        Args:
            rows: with the score of the pair's own answer.
            seed: of the demonstrations that are drawn.
            thorough: `plain` and `form` too. They cost forward tokens and have not made the chances better.
        """
        if not rows:
            return []
        examples = [example for example, _ in rows]
        plain = self._nll(prompt, examples, adapter, ("plain", "whole", "form") if thorough else ("whole",))
        trial_prompts = self._trial_prompts(prompt, examples, seed)
        is_best_shown = prompt.retrieval is not None if self._retrieves else prompt.shown >= SHOWN
        shown_prompt = prompt if is_best_shown else next(iter(trial_prompts), prompt)
        shown = self._nll(shown_prompt, examples, adapter, ("whole", "answer"))
        trials = self._trials(rows, trial_prompts, adapter)
        pair = {"demos": min(1.0, prompt.shown / MANY_DEMOS), "tuned": float(adapter is not None)}
        return [
            {"content": score.content, "style": score.style, **own}
            | {f"shown_{name}": value for name, value in with_demos.items()}
            | {**trial, **near, **pair}
            for (_, score), own, with_demos, trial, near in zip(
                rows, plain, shown, trials, self._nearness(examples), strict=True
            )
        ]

    # --- likelihoods ---

    def _nll(
        self, prompt: Prompt, examples: Sequence[Example], adapter: str | None, names: Sequence[str]
    ) -> list[Features]:
        """Mean NLL of these parts of each reference in nats per token, by one call. The same text is scored once.

        A part that was not measured is left out; a form without tokens of its own has 0.
        """
        all_parts = [_parts(self._scorers.show(example.answer), example.answer) for example in examples]
        wanted = [{name: parts[name] for name in names} for parts in all_parts]
        scored = [
            (index, part)
            for index, parts in enumerate(wanted)
            for part in dict.fromkeys(part for part in parts.values() if part[1])
        ]
        values, _ = self._model.nll(
            prompt, [examples[index] for index, _ in scored], [part for _, part in scored], adapter=adapter
        )
        known = dict(zip(scored, values, strict=True))
        measured = [
            {name: known.get((index, part), 0.0 if name == "form" else None) for name, part in parts.items()}
            for index, parts in enumerate(wanted)
        ]
        return [{name: value for name, value in parts.items() if value is not None} for parts in measured]

    def _trial_prompts(self, prompt: Prompt, examples: Sequence[Example], seed: int) -> list[Prompt]:
        """The prompt with other few-shot examples than its own, a prompt a trial: the nearest rows, then drawn ones.

        No row is drawn twice, and none of the examples, which may be train rows, demonstrates itself.
        """
        probed = {example.name for example in examples}
        others = [row for row in self._train if row.name not in probed]
        if len(others) <= SHOWN:
            return []
        bare = prompt.model_copy(update={"demos": (), "retrieval": None})
        trials = [bare.model_copy(update={"retrieval": Retrieval(k=SHOWN)})] if self._retrieves else []
        rows = random.Random(seed).sample(others, min(len(others), SHOWN * (TRIALS - len(trials))))
        demos = [Demo(question=row.question, answer=self._scorers.show(row.answer)) for row in rows]
        trials += [
            bare.model_copy(update={"demos": tuple(demos[start : start + SHOWN])})
            for start in range(0, len(demos), SHOWN)
        ]
        return trials

    # --- trial answers ---

    def _trials(
        self, rows: Sequence[tuple[Example, ExampleScore]], prompts: Sequence[Prompt], adapter: str | None
    ) -> list[Features]:
        """`alike`, `right`, `formed` and `near_right` of each row; nothing for a row that has no trial answer."""
        examples = [example for example, _ in rows]
        trials = [
            self._model.generate(prompt, examples, adapter=adapter, max_new_tokens=self._max_new_tokens)[0]
            for prompt in prompts
        ]
        answers = zip(*trials, strict=True) if trials else [()] * len(rows)
        return [self._compared(*row, of_row) for row, of_row in zip(rows, answers, strict=True)]

    def _compared(self, example: Example, score: ExampleScore, answers: Sequence[str | None]) -> Features:
        outputs = [answer for answer in answers if answer is not None]
        if answers and not outputs:
            return {}
        words = Counter(next(iter(folded(text).split()), "") for text in (score.output, *outputs))  # first words
        passed = [self._scorers.full_marks(output, example) for output in outputs]
        formed = [not self._scorers.faults(output) for output in outputs]
        compared = {
            "alike": max(words.values()) / words.total(),
            "right": sum(passed) / max(1, len(passed)),
            "formed": sum(formed) / max(1, len(formed)),
        }
        if self._retrieves and answers and answers[0] is not None:
            compared["near_right"] = float(passed[0])
        return compared

    # --- train rows that are near ---

    def _nearness(self, examples: Sequence[Example]) -> list[Features]:
        """`near`, `taught` and `common` of each example."""
        answers = [folded(row.answer) for row in self._train]
        common = [{"common": answers.count(folded(example.answer)) / max(1, len(answers))} for example in examples]
        if self._embed is None or not self._train:
            return common
        nearness = []
        for example, question, features in zip(
            examples, self._embed([example.question for example in examples]), common, strict=True
        ):
            cosines = {
                index: sum(a * b for a, b in zip(question, train_question, strict=True))
                for index, train_question in enumerate(self._train_vectors)
                if self._train[index].name != example.name
            }
            same = [cosine for index, cosine in cosines.items() if answers[index] == folded(example.answer)]
            nearness.append(features | {"near": max(cosines.values(), default=0.0), "taught": max(same, default=0.0)})
        return nearness

    @cached_property
    def _train_vectors(self) -> list[list[float]]:
        assert self._embed is not None, "asked for only where texts can be embedded"
        return self._embed([row.question for row in self._train[:COMPARED]])


def is_complete(features: Mapping[str, float]) -> bool:
    """Whether everything that takes the model could be measured: only such rows are learned from."""
    return features.keys() >= MEASURED


def _parts(shown: str, answer: str) -> dict[str, tuple[str, str]]:
    """The parts of a reference by name, as (given, scored) texts. The form ends where the answer last occurs in it."""
    at = shown.rfind(answer)
    form, text = (shown[:at], answer) if at >= 0 else ("", shown)
    return {"plain": ("", answer), "whole": ("", shown), "form": ("", form), "answer": (form, text)}
