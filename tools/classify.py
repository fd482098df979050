"""The reward classifier: does a failing example need new content (weights) or another style (words)?

Two rewards say what failed; a probe of negative log-likelihoods says where the lack sits. What demonstrations take
away from the reference's NLL is what words can mend (the prompt gap); what stays on the answer's own tokens, with
form and demonstrations given, is what only weights can mend (the weight gap). Both in nats per token.
"""

import random
from collections.abc import Sequence

from agent.protocols import LanguageModel, Scorers
from agent.records import Demo, Diagnosis, Evaluation, Example, ExampleDiagnosis, ExampleScore, Need, Prompt

# Between what a small model knows (up to 4.8 nats per answer token) and what it cannot know (from 4.5 on).
KNOWN_BELOW = 4.7
# A prompt gap under this is within what any two demonstrations change by chance.
WORDS_HELP_FROM = 1.0
PROBED = 12
SHOWN = 2


class Classifier:
    """Diagnoses the failing examples of an evaluation by rules over rewards and gaps."""

    def __init__(self, model: LanguageModel, scorers: Scorers, train: Sequence[Example]) -> None:
        self._model = model
        self._scorers = scorers
        self._train = train

    def diagnose(self, evaluation: Evaluation, examples: Sequence[Example], prompt: Prompt, seed: int) -> Diagnosis:
        """Sort the failing examples (reward below 1) by need; at most `PROBED` of them, drawn by seed.

        Args:
            evaluation: the best pair's scores on `examples`, in the same order.
        """
        failing = _failing(evaluation, examples)
        probed = random.Random(seed).sample(failing, min(PROBED, len(failing)))
        gaps = self._gaps([example for example, _ in probed], prompt, evaluation.candidate.adapter, seed)
        found = tuple(
            ExampleDiagnosis(
                example=score.example, need=need(score, words, weights), prompt_gap=words, weight_gap=weights
            )
            for (_, score), (words, weights) in zip(probed, gaps, strict=True)
        )
        return Diagnosis(failing=len(failing), total=len(examples), examples=found)

    def _gaps(
        self, examples: Sequence[Example], prompt: Prompt, adapter: str | None, seed: int
    ) -> list[tuple[float, float]]:
        """(prompt gap, weight gap) of each example, in nats per token; at least 0."""
        if not examples:
            return []
        shown = [self._scorers.show(example.answer) for example in examples]
        taught = self._with_demos(prompt, seed)
        whole = [("", text) for text in shown]
        split = [_split(text, example.answer) for text, example in zip(shown, examples, strict=True)]
        now = self._model.nll(prompt, examples, whole, adapter=adapter)
        then = now if taught == prompt else self._model.nll(taught, examples, whole, adapter=adapter)
        rest = self._model.nll(taught, examples, split, adapter=adapter)
        return [(max(0.0, a - b), c) for a, b, c in zip(now, then, rest, strict=True)]

    def _with_demos(self, prompt: Prompt, seed: int) -> Prompt:
        """The prompt with two demonstrations in the wanted form; as it is, where it has as many already."""
        if len(prompt.demos) >= SHOWN or len(self._train) <= SHOWN:
            return prompt
        drawn = random.Random(seed).sample(list(self._train), SHOWN)
        demos = tuple(Demo(question=row.question, answer=self._scorers.show(row.answer)) for row in drawn)
        return prompt.model_copy(update={"demos": demos})


def by_rewards(evaluation: Evaluation, examples: Sequence[Example]) -> Diagnosis:
    """What all failing examples lack, as far as their two rewards tell. Asks the model nothing."""
    found = tuple(
        ExampleDiagnosis(example=score.example, need=_lacks(score)) for _, score in _failing(evaluation, examples)
    )
    return Diagnosis(failing=len(found), total=len(examples), examples=found)


def _failing(evaluation: Evaluation, examples: Sequence[Example]) -> list[tuple[Example, ExampleScore]]:
    return [pair for pair in zip(examples, evaluation.scores, strict=True) if pair[1].reward < 1]


def _lacks(score: ExampleScore) -> Need:
    if score.content == 1:
        return "style"
    return "content" if score.style == 1 else "both"


def need(score: ExampleScore, prompt_gap: float, weight_gap: float) -> Need:
    """What an example that failed with this score lacks.

    Where the knowledge sits in the weights (weight gap below `KNOWN_BELOW`) and words take away a good part of the
    NLL, a wrong answer is one that was not asked for well.
    """
    known = weight_gap < KNOWN_BELOW
    if score.content == 1:
        return "style"
    if score.style == 1:
        return "style" if known and prompt_gap >= WORDS_HELP_FROM else "content"
    return "style" if known else "both"


def _split(shown: str, answer: str) -> tuple[str, str]:
    """The shown reference as (form before the answer, the answer's own text). A short answer may stand in its form."""
    at = shown.rfind(answer)
    return (shown[:at], answer) if at >= 0 else ("", shown)
