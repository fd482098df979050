"""The features of a failing example: what the classifier looks at.

| feature        | unit           | what it is |
|----------------|----------------|------------|
| `content`      | 0 to 1         | the reward for the content of the pair's own answer |
| `style`        | 0 to 1         | the reward for its style |
| `whole`        | nats per token | mean NLL of the reference in the wanted form, under the present prompt |
| `shown_whole`  | nats per token | the same, with two few-shot examples in the prompt |
| `shown_answer` | nats per token | the answer's own tokens after the form, with two few-shot examples in the prompt |
| `right`        | share, 0 to 1  | of the trial answers, those with full content and style |
| `near_right`   | 0 or 1         | whether the trial answer under the nearest train rows has full content and style |

The few-shot examples are the nearest train rows, where they can be retrieved, and drawn ones elsewhere. Trial answers
are short answers under the nearest and under drawn rows. `near_right` is missing where none are retrieved. A feature
that cannot be measured is missing too: the row does not fit into the model's window, or there is nothing to score.
"""

import random
from collections.abc import Mapping, Sequence

from agent.protocols import Asked, LanguageModel, Scorers
from agent.records.evaluation import ExampleScore
from agent.records.examples import Demo, Example, Prompt, Retrieval

SHOWN = 2  # few-shot examples of a trial
TRIALS = 2
ANSWER_TOKENS = 16  # of a trial answer at most: enough for its form and its main content

MEASURED = frozenset({"whole", "shown_whole", "shown_answer", "right"})

Features = dict[str, float]


class FeatureExtractor:
    """Measures the features of failing examples: likelihoods in two calls of the model, and one call for each trial.

    Args:
        train: the rows that few-shot examples are drawn from.
        max_new_tokens: of an answer, as the task allows; a trial answer has at most `ANSWER_TOKENS`.
        retrieves: whether the model answers prompts that retrieve.
    """

    def __init__(
        self,
        model: LanguageModel,
        scorers: Scorers,
        train: Sequence[Example],
        max_new_tokens: int = ANSWER_TOKENS,
        retrieves: bool = False,
    ) -> None:
        self._model = model
        self._scorers = scorers
        self._train = train
        self._max_new_tokens = min(max_new_tokens, ANSWER_TOKENS)
        self._retrieves = retrieves

    def features(
        self, rows: Sequence[tuple[Example, ExampleScore]], prompt: Prompt, adapter: str | None, seed: int
    ) -> list[Features]:
        """The features of each failing row, under this pair of prompt and adapter.

        Args:
            rows: with the score of the pair's own answer.
            seed: of the few-shot examples that are drawn.
        """
        if not rows:
            return []
        examples = [example for example, _ in rows]
        trial_prompts = self._trial_prompts(prompt, examples, seed)
        is_best_shown = prompt.retrieval is not None if self._retrieves else prompt.shown >= SHOWN
        shown_prompt = prompt if is_best_shown else next(iter(trial_prompts), prompt)
        bare = self._nll(prompt, examples, adapter, ("whole",))
        shown = self._nll(shown_prompt, examples, adapter, ("whole", "answer"))
        trials = self._trials(examples, trial_prompts, adapter)
        return [
            {"content": score.content, "style": score.style, **own, **trial}
            | {f"shown_{name}": value for name, value in with_examples.items()}
            for (_, score), own, with_examples, trial in zip(rows, bare, shown, trials, strict=True)
        ]

    def _nll(
        self, prompt: Prompt, examples: Sequence[Example], adapter: str | None, names: Sequence[str]
    ) -> list[Features]:
        """Mean NLL of these parts of each reference in nats per token, by one call. The same text is scored once.

        A part that was not measured is left out.
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
            {name: known.get((index, part)) for name, part in parts.items()} for index, parts in enumerate(wanted)
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
        bare = prompt.bare
        trials = [bare.model_copy(update={"retrieval": Retrieval(k=SHOWN)})] if self._retrieves else []
        rows = random.Random(seed).sample(others, min(len(others), SHOWN * (TRIALS - len(trials))))
        demos = [Demo(question=row.question, answer=self._scorers.show(row.answer)) for row in rows]
        trials += [
            bare.model_copy(update={"demos": tuple(demos[start : start + SHOWN])})
            for start in range(0, len(demos), SHOWN)
        ]
        return trials

    def _trials(self, examples: Sequence[Example], prompts: Sequence[Prompt], adapter: str | None) -> list[Features]:
        """`right` and `near_right` of each example; nothing for one that has no trial answer."""
        asked = [Asked(prompt, examples) for prompt in prompts]
        trials = self._model.generate_each(asked, adapter=adapter, max_new_tokens=self._max_new_tokens) if asked else []
        answers = zip(*(texts for texts, _ in trials), strict=True) if trials else [()] * len(examples)
        return [self._passed(example, of_row) for example, of_row in zip(examples, answers, strict=True)]

    def _passed(self, example: Example, answers: Sequence[str | None]) -> Features:
        passed = [self._scorers.full_marks(answer, example) for answer in answers if answer is not None]
        if answers and not passed:
            return {}
        features = {"right": sum(passed) / max(1, len(passed))}
        if self._retrieves and answers and answers[0] is not None:
            features["near_right"] = float(passed[0])
        return features


def is_complete(features: Mapping[str, float]) -> bool:
    """Whether everything that takes the model could be measured: only such rows are learned from."""
    return features.keys() >= MEASURED


def _parts(shown: str, answer: str) -> dict[str, tuple[str, str]]:
    """The parts of a reference by name, as (given, scored) texts. The form ends where the answer last occurs in it."""
    at = shown.rfind(answer)
    form, text = (shown[:at], answer) if at >= 0 else ("", shown)
    return {"whole": ("", shown), "answer": (form, text)}
