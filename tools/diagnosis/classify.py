"""The reward classifier: does a failing example need new content (weights) or another style (words)?

Two rewards say what failed; a probe of negative log-likelihoods says where the lack sits. What demonstrations take
away from the reference's NLL is what words can mend (the prompt gap); what stays on the answer's own tokens, with
form and demonstrations given, is what only weights can mend (the weight gap). Both in nats per token.

A model fitted to what edits did to such rows (tools.diagnosis.needs) gives the chances; where it knows too little, two
thresholds on the gaps decide.
"""

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from agent.protocols import Embed, LanguageModel, Scorers
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Example, Prompt
from agent.records.signal import Diagnosis, ExampleDiagnosis, Need, Probe
from tools.diagnosis.features import ANSWER_TOKENS, FeatureExtractor

if TYPE_CHECKING:
    from tools.diagnosis.needs import NeedModel

# Between what a small model knows (up to 4.8 nats per answer token) and what it cannot know (from 4.5 on).
KNOWN_BELOW = 4.7
# A prompt gap under this is within what any two demonstrations change by chance.
WORDS_HELP_FROM = 1.0
PROBED = 12
# So many of a kind are asked about first. Where all clearly need the same, the others of it are taken to need it too.
FIRST = 4
SURE = 0.75


class Classifier:
    """Diagnoses the failing examples of an evaluation: by what edits did to rows like them, else by rules.

    Args:
        probes: rows of which it is known what an edit did; by default those that come with the package.
        embed, max_new_tokens: see `tools.diagnosis.features.FeatureExtractor`.
    """

    def __init__(
        self,
        model: LanguageModel,
        scorers: Scorers,
        train: Sequence[Example],
        embed: Embed | None = None,
        probes: Sequence[Probe] | None = None,
        max_new_tokens: int = ANSWER_TOKENS,
    ) -> None:
        self._probing = FeatureExtractor(model, scorers, train, embed, max_new_tokens)
        self._probes = probes

    def diagnose(
        self,
        evaluation: Evaluation,
        examples: Sequence[Example],
        prompt: Prompt,
        seed: int,
        known: Mapping[str, Mapping[str, float]] | None = None,
        own: Sequence[Probe] = (),
    ) -> Diagnosis:
        """Sort the failing examples (reward below 1) by need; at most `PROBED` of them, drawn by seed.

        Probing costs forward tokens. So a right answer that fails is not probed (it lacks style). Of the wrong ones,
        those whose style holds and those whose style fails are two kinds; of each kind, `FIRST` rows are probed, and
        the rest only if these leave a doubt.

        Args:
            evaluation: the best pair's scores on `examples`, in the same order.
            known: features of rows that were probed under this pair before, by example; they are not probed again.
            own: rows of this run, with what an edit then did to them.
        """
        failing = _failing(evaluation, examples)
        drawn = random.Random(seed).sample(failing, min(PROBED, len(failing)))
        wrong = [pair for pair in drawn if pair[1].content < 1]
        needs, adapter = self._needs(own) if wrong else None, evaluation.candidate.adapter
        kinds = [[pair for pair in wrong if (pair[1].style == 1) == holds] for holds in (True, False)]
        asked = [pair for kind in kinds for pair in kind[:FIRST]]
        features = self.features(asked, prompt, adapter, seed, known or {})
        by_name, by = _sorted(asked, features, needs)
        clear = [kind for kind in kinds if _clear([by_name[score.example] for _, score in kind[:FIRST]])]
        if doubtful := [pair for kind in kinds if kind not in clear for pair in kind[FIRST:]]:
            asked, features = asked + doubtful, features + self.features(doubtful, prompt, adapter, seed, known or {})
            by_name, by = _sorted(asked, features, needs)
        for kind in clear:
            for place, (_, score) in enumerate(kind[FIRST:]):
                by_name[score.example] = _like(by_name[kind[place % FIRST][1].example], score)
        found = [by_name.get(score.example) or _lacks_style(score) for _, score in drawn]
        return Diagnosis(failing=len(failing), total=len(examples), examples=tuple(found), by=by)

    def features(
        self,
        rows: Sequence[tuple[Example, ExampleScore]],
        prompt: Prompt,
        adapter: str | None,
        seed: int,
        known: Mapping[str, Mapping[str, float]],
        thorough: bool = False,
    ) -> list[dict[str, float]]:
        """See `tools.diagnosis.features`; of a row whose features are known, those."""
        new = [(example, score) for example, score in rows if not known.get(example.name)]
        probed = iter(self._probing.features(new, prompt, adapter, seed, thorough))
        return [dict(known.get(example.name) or next(probed)) for example, _ in rows]

    def _needs(self, own: Sequence[Probe]) -> "NeedModel | None":
        from tools.diagnosis.needs import NeedModel, shipped_probes

        if self._probes is None:
            self._probes = shipped_probes()
        needs = NeedModel([*self._probes, *own])
        return needs if needs.words else None


def _sorted(
    rows: Sequence[tuple[Example, ExampleScore]], features: Sequence[Mapping[str, float]], needs: "NeedModel | None"
) -> tuple[dict[str, ExampleDiagnosis], Literal["rewards", "rules", "model"]]:
    """Each row's need by example, and who says so: the model where it knows most of them."""
    asked = needs is not None and sum(map(needs.knows, features)) * 2 > len(features)
    found = {
        score.example: _diagnosis(score, dict(one), needs if asked else None)
        for (_, score), one in zip(rows, features, strict=True)
    }
    return found, "rewards" if not rows else "model" if asked else "rules"


def _clear(probed: Sequence[ExampleDiagnosis]) -> bool:
    """Whether these first rows of a kind leave no doubt about the others of it."""
    sure = all(max(one.chances.values(), default=1.0) >= SURE for one in probed)
    return len(probed) == FIRST and len({one.need for one in probed}) == 1 and sure


def _like(probed: ExampleDiagnosis, score: ExampleScore) -> ExampleDiagnosis:
    """A row that is taken to be as the probed one; its own features are not known."""
    return probed.model_copy(update={"example": score.example, "features": {}})


def _lacks_style(score: ExampleScore) -> ExampleDiagnosis:
    return ExampleDiagnosis(example=score.example, need="style")


def _diagnosis(score: ExampleScore, features: dict[str, float], needs: "NeedModel | None") -> ExampleDiagnosis:
    """By the model where it knows such rows, else by the rules."""
    words, weights = gaps(features)
    ruled = need(score, words, weights)
    chances = needs.chances(features) if needs and needs.knows(features) else {}
    return ExampleDiagnosis(
        example=score.example, need=max(chances, key=lambda one: chances[one]) if chances else ruled,
        prompt_gap=words, weight_gap=weights, chances=chances, features=features,
    )  # fmt: skip


def gaps(features: Mapping[str, float]) -> tuple[float | None, float | None]:
    """(prompt gap, weight gap) in nats per token, at least 0; None for one that was not measured."""
    measured = "whole" in features and "shown_whole" in features
    words = max(0.0, features["whole"] - features["shown_whole"]) if measured else None
    return words, features.get("shown_answer")


def by_rewards(evaluation: Evaluation, examples: Sequence[Example]) -> Diagnosis:
    """What all failing examples lack, as far as their two rewards tell. Asks the model nothing."""
    found = tuple(
        ExampleDiagnosis(example=score.example, need=_lacks(score)) for _, score in _failing(evaluation, examples)
    )
    return Diagnosis(failing=len(found), total=len(examples), examples=found, by="rewards")


def _failing(evaluation: Evaluation, examples: Sequence[Example]) -> list[tuple[Example, ExampleScore]]:
    """Those that were answered: a row without room in the model's window lacks neither content nor style."""
    pairs = zip(examples, evaluation.scores, strict=True)
    return [(example, score) for example, score in pairs if score.reward < 1 and not score.too_long]


def _lacks(score: ExampleScore) -> Need:
    if score.content == 1:
        return "style"
    return "content" if score.style == 1 else "both"


def need(score: ExampleScore, prompt_gap: float | None, weight_gap: float | None) -> Need:
    """What an example that failed with this score lacks.

    Where the knowledge sits in the weights (weight gap below `KNOWN_BELOW`) and words take away a good part of the
    NLL, a wrong answer is one that was not asked for well. Where a gap was not measured, the two rewards alone tell.
    """
    if prompt_gap is None or weight_gap is None:
        return _lacks(score)
    known = weight_gap < KNOWN_BELOW
    if score.content == 1:
        return "style"
    if score.style == 1:
        return "style" if known and prompt_gap >= WORDS_HELP_FROM else "content"
    return "style" if known else "both"
