"""The reward classifier: does a failing example need new content (weights) or another style (words)?

The two rewards say what failed; negative log-likelihoods of the reference say where the lack is:

- The prompt gap is the part of the reference's NLL that demonstrations take away: words can mend it.
- The weight gap is what remains on the answer's own tokens, with its form and demonstrations given: the larger it is,
  the less the model knows the answer. Weights can learn it; words can only if they bring it along.

Both are in nats per token. A model fitted to what edits did to such rows (tools.diagnosis.needs) gives the chance of
each need; where it knows too few such rows, two thresholds on the gaps decide.
"""

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from agent.protocols import LanguageModel, Scorers
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Example, Prompt
from agent.records.signal import KNOWN_BELOW, Diagnosis, ExampleDiagnosis, Need, Probe
from tools.diagnosis.features import ANSWER_TOKENS, FeatureExtractor
from tools.diagnosis.luck import NO_LUCK, Luck, beyond_luck, more_rows_may_tell, shows_nothing, without_luck

if TYPE_CHECKING:
    from tools.diagnosis.needs import NeedModel

# Nats per token: any two demonstrations change the NLL by less than this.
WORDS_HELP_FROM = 1.0
PROBED = 12  # rows at most
# So many rows of a kind are probed first. If all of them clearly need the same, so does the rest of the kind.
FIRST = 4
SURE = 0.75  # the least chance of a clear need

Scored = tuple[Example, ExampleScore]


class Classifier:
    """Diagnoses the failing examples of an evaluation: from what edits did to similar rows, else by rules.

    Args:
        model, scorers, train, max_new_tokens, retrieves: see `tools.diagnosis.features.FeatureExtractor`.
        probes: rows with what an edit did to them; by default those that come with the package.
        luck: what a guess earns.
    """

    def __init__(
        self,
        model: LanguageModel,
        scorers: Scorers,
        train: Sequence[Example],
        probes: Sequence[Probe] | None = None,
        max_new_tokens: int = ANSWER_TOKENS,
        retrieves: bool = False,
        luck: Luck = NO_LUCK,
    ) -> None:
        self.luck = luck
        self._extractor = FeatureExtractor(model, scorers, train, max_new_tokens, retrieves)
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

        Features cost forward tokens. So a right answer that fails is not probed: it lacks style (and content, as far
        as it is right by luck). Wrong answers are of two kinds, those whose style holds and those whose style fails; of
        each kind, `FIRST` rows are probed, and the others only if these leave a doubt.

        Args:
            evaluation: the best pair's scores on `examples`, in the same order.
            known: features of rows that were probed under this pair before, by name of the example.
            own: probed rows of this run, with what an edit then did to them.
        """
        failing = _failing(evaluation, examples)
        drawn = random.Random(seed).sample(failing, min(PROBED, len(failing)))
        wrong = [(example, score) for example, score in drawn if score.content < 1]
        needs, adapter = self._need_model(own) if wrong else None, evaluation.candidate.adapter
        kinds = [[(row, score) for row, score in wrong if (score.style == 1) == holds] for holds in (True, False)]
        probed = [row for kind in kinds for row in kind[:FIRST]]
        features = self.features(probed, prompt, adapter, seed, known or {})
        by_name, by = _diagnosed(probed, features, needs, self.luck)
        clear = [
            kind for kind in kinds if self._is_clear([by_name[score.example] for _, score in kind[:FIRST]], len(kind))
        ]
        if doubtful := [row for kind in kinds if kind not in clear for row in kind[FIRST:]]:
            probed, features = probed + doubtful, features + self.features(doubtful, prompt, adapter, seed, known or {})
            by_name, by = _diagnosed(probed, features, needs, self.luck)
        for kind in clear:  # its other rows are taken to need what the probed ones need; they have no features
            for place, (_, score) in enumerate(kind[FIRST:]):
                similar = by_name[kind[place % FIRST][1].example]
                by_name[score.example] = similar.model_copy(update={"example": score.example, "features": {}})
        knows = beyond_luck([float(score.content == 1) for score in evaluation.scores], self.luck.chance)
        found = [by_name.get(score.example) or _of_right_answer(score.example, knows) for _, score in drawn]
        return Diagnosis(failing=len(failing), total=len(examples), examples=tuple(found), by=by)

    def _is_clear(self, probed: Sequence[ExampleDiagnosis], total: int) -> bool:
        """Whether these first rows of a kind leave no doubt about the others, of which there are so many with them."""
        if len(probed) < FIRST or len({diagnosis.need for diagnosis in probed}) > 1:
            return False
        features = [diagnosis.features for diagnosis in probed]
        sure = all(max(diagnosis.chances.values(), default=1.0) >= SURE for diagnosis in probed)
        return sure and not more_rows_may_tell(features, self.luck.of(features[0]), total)

    def features(
        self,
        rows: Sequence[Scored],
        prompt: Prompt,
        adapter: str | None,
        seed: int,
        known: Mapping[str, Mapping[str, float]],
    ) -> list[dict[str, float]]:
        """The features of each row: the known ones, else those of `tools.diagnosis.features`.

        Args:
            known: by name of the example.
        """
        new = [(example, score) for example, score in rows if not known.get(example.name)]
        probed = iter(self._extractor.features(new, prompt, adapter, seed))
        return [dict(known.get(example.name) or next(probed)) for example, _ in rows]

    def _need_model(self, own: Sequence[Probe]) -> "NeedModel | None":
        from tools.diagnosis.needs import NeedModel, shipped_probes

        if self._probes is None:
            self._probes = shipped_probes()
        needs = NeedModel([*self._probes, *own])
        return needs if needs.words_help else None


def _diagnosed(
    rows: Sequence[Scored], features: Sequence[dict[str, float]], needs: "NeedModel | None", luck: Luck
) -> tuple[dict[str, ExampleDiagnosis], Literal["rewards", "rules", "model"]]:
    """Each row's diagnosis by example, and who decided: the model if it knows most of the rows, else the rules."""
    by_model = needs is not None and sum(map(needs.knows, features)) * 2 > len(features)
    found, plain = {}, without_luck(features, luck)
    for (_, score), values, known, guessed in zip(rows, features, plain, shows_nothing(features, luck), strict=True):
        prompt_gap, weight_gap = gaps(values)
        chances = needs.chances(known) if needs and by_model and needs.knows(values) else {}
        by_rules = need_by_rules(score, prompt_gap, weight_gap, guessed)
        found[score.example] = ExampleDiagnosis(
            example=score.example, need=max(chances, key=chances.__getitem__, default=by_rules),
            prompt_gap=prompt_gap, weight_gap=weight_gap, chances=chances, features=values,
        )  # fmt: skip
    return found, "rewards" if not rows else "model" if by_model else "rules"


def _of_right_answer(example: str, known: float) -> ExampleDiagnosis:
    """The diagnosis of a right answer in the wrong form: it lacks style, and as far as it is a guess, content too."""
    chances: dict[Need, float] = {"style": known, "content": 0.0, "both": 1 - known} if known < 1 else {}
    return ExampleDiagnosis(example=example, need="style" if known >= 0.5 else "both", chances=chances)


def gaps(features: Mapping[str, float]) -> tuple[float | None, float | None]:
    """(prompt gap, weight gap) in nats per token, at least 0; None for a gap that was not measured."""
    measured = "whole" in features and "shown_whole" in features
    prompt_gap = max(0.0, features["whole"] - features["shown_whole"]) if measured else None
    return prompt_gap, features.get("shown_answer")


def diagnose_by_rewards(evaluation: Evaluation, examples: Sequence[Example]) -> Diagnosis:
    """What all failing examples lack, from their two rewards alone. It runs no model."""
    found = tuple(
        ExampleDiagnosis(example=score.example, need=_need_by_rewards(score))
        for _, score in _failing(evaluation, examples)
    )
    return Diagnosis(failing=len(found), total=len(examples), examples=found, by="rewards")


def _failing(evaluation: Evaluation, examples: Sequence[Example]) -> list[Scored]:
    """Those that were answered: a row longer than the model's window lacks neither content nor style."""
    pairs = zip(examples, evaluation.scores, strict=True)
    return [(example, score) for example, score in pairs if score.reward < 1 and not score.too_long]


def _need_by_rewards(score: ExampleScore) -> Need:
    if score.content == 1:
        return "style"
    return "content" if score.style == 1 else "both"


def need_by_rules(
    score: ExampleScore, prompt_gap: float | None, weight_gap: float | None, guessed: bool = False
) -> Need:
    """What an example that failed with this score lacks.

    A wrong answer lacks only style where the weights know it (weight gap below `KNOWN_BELOW`) and words take away much
    of the NLL: the question was asked badly. Where a gap was not measured, the two rewards alone decide.

    Args:
        prompt_gap, weight_gap: nats per token; None: not measured.
        guessed: a likely answer may be one of few, and no knowledge.
    """
    if prompt_gap is None or weight_gap is None:
        return _need_by_rewards(score)
    known = weight_gap < KNOWN_BELOW and not guessed
    if score.content == 1:
        return "style"
    if score.style == 1:
        return "style" if known and prompt_gap >= WORDS_HELP_FROM else "content"
    return "style" if known else "both"
