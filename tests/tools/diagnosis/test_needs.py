"""What mends a failing row: fitted to rows of known chances, and left alone where too little is known."""

import math
import random
from collections.abc import Callable, Sequence

import pytest

from agent.config.scorers import Contains, StartsWith
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate, Example, Prompt
from agent.records.signal import Need, Probe
from bench.studies.calibration import Prediction, base_rate, calibration_error, hold_out, mean_nll, table
from eval.scoring import TaskScorers
from tools.diagnosis.classify import Classifier
from tools.diagnosis.features import FeatureExtractor
from tools.diagnosis.needs import LEAST, NeedModel, fit, shipped_probes
from tools.model.backbone import Backbone

SCORERS = TaskScorers([Contains(kind="contains")], [StartsWith(kind="starts_with", text="ANSWER: ")])
TRAIN = [Example(name=f"train:{n}", question=f"Train question {n}?", answer=f"{n}") for n in range(6)]
SEED = Prompt(system="Answer.")
Made = Callable[[float], bool]


def probes(count: int, mended: Made, seed: int = 0, tasks: int = 4, own: bool = False) -> list[Probe]:
    """Rows of one kind (neither right nor as asked) with a telling feature in [-2, 2], and one of noise."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        telling = draw.uniform(-2, 2)
        features = {"content": 0.0, "style": 0.0, "telling": telling, "noise": draw.gauss(0, 1)}
        made.append(
            Probe(task=f"t{number % tasks}", model="m", pair="p", example=f"validation:{number}", features=features,
                  rules="both", words=mended(telling), own=own)
        )  # fmt: skip
    return made


def row(telling: float, **changes: float) -> dict[str, float]:
    return {"content": 0.0, "style": 0.0, "telling": telling, "noise": 0.0} | changes


def test_rows_that_can_be_told_apart_are_told_apart() -> None:
    needs = NeedModel(probes(120, lambda telling: telling > 0))
    assert needs.chances(row(1.5))["style"] > 0.9 > 0.1 > needs.chances(row(-1.5))["style"]


def test_chances_are_those_that_the_rows_were_drawn_with() -> None:
    draw = random.Random(1)
    chance = lambda telling: 1 / (1 + math.exp(-1.5 * telling))  # noqa: E731
    needs = NeedModel(probes(600, lambda telling: draw.random() < chance(telling)))
    fresh = probes(2000, lambda telling: draw.random() < chance(telling), seed=7)
    assert needs.words_help
    told = [Prediction(needs.words_help.chance(one.features), bool(one.words)) for one in fresh]
    assert calibration_error(told) < 0.05
    for telling in (-1.5, 0.0, 1.5):
        assert needs.words_help.chance(row(telling)) == pytest.approx(chance(telling), abs=0.1)


def test_what_tells_nothing_gives_chances_near_the_share() -> None:
    draw = random.Random(2)
    needs = NeedModel(probes(300, lambda _: draw.random() < 0.3))
    assert all(needs.chances(row(telling))["style"] == pytest.approx(0.3, abs=0.12) for telling in (-2, 0, 2))


@pytest.mark.parametrize(("style", "rest"), [(0.0, "both"), (1.0, "content")])
def test_what_words_do_not_mend_lacks_content_and_style_too_where_it_fails(style: float, rest: Need) -> None:
    made = [
        one.model_copy(update={"features": one.features | {"style": style}}) for one in probes(120, lambda x: x > 0)
    ]
    needs = NeedModel(made)
    chances = needs.chances(row(-1.5, style=style))
    assert sum(chances.values()) == pytest.approx(1)
    assert max(chances, key=lambda one: chances[one]) == rest
    assert needs.words_help and chances["style"] == needs.words_help.chance(row(-1.5, style=style))


def test_with_too_few_rows_or_of_one_outcome_nothing_is_fitted() -> None:
    assert fit(probes(LEAST - 1, lambda telling: telling > 0)) is None
    assert fit(probes(200, lambda _: True)) is None
    assert fit([]) is None
    assert fit(probes(LEAST, lambda telling: telling > 0)) is not None
    with pytest.raises(ValueError, match="too few"):
        NeedModel([]).chances(row(1.0))


def test_strangers_are_not_known() -> None:
    needs = NeedModel(probes(120, lambda telling: telling > 0))
    assert needs.knows(row(1.0))
    assert needs.knows(row(2.5))  # a little further than any seen
    assert not needs.knows(row(9.0))
    assert not needs.knows(row(1.0, style=1.0))  # of a kind that was never probed
    assert not needs.knows({name: value for name, value in row(1.0).items() if name != "telling"})


def test_rows_of_the_own_run_change_the_chances_and_weigh_more() -> None:
    others = probes(120, lambda telling: telling > 0)
    contrary = [
        one.model_copy(update={"words": False}) for one in probes(12, bool, seed=5) if one.features["telling"] > 0
    ]
    before, foreign = NeedModel(others), NeedModel([*others, *contrary])
    own = NeedModel([*others, *(one.model_copy(update={"own": True}) for one in contrary)])
    said = [needs.chances(row(1.0))["style"] for needs in (before, foreign, own)]
    assert said[0] > said[1] > said[2]


def test_a_task_that_is_held_out_is_predicted_without_it() -> None:
    rows = probes(400, lambda telling: telling > 0, tasks=8)
    turned = [one.model_copy(update={"words": not one.words}) if one.task == "t0" else one for one in rows]
    judged = hold_out(turned, lambda probe: probe.task)
    by_task = {one.task for one in turned}
    assert len(judged.needs) + judged.unknown == len(rows)
    right = sum(max(chances, key=lambda one: chances[one]) == true for chances, true, _ in judged.needs)
    assert right / len(judged.needs) == pytest.approx(1 - 1 / len(by_task), abs=0.1)
    assert table({"tasks": judged}).count("\n") == 3


def test_calibration_error_is_the_distance_from_the_frequency() -> None:
    assert calibration_error([Prediction(0.5, place % 2 == 0) for place in range(100)], bins=1) == pytest.approx(0)
    assert calibration_error([Prediction(0.9, False)] * 10) == pytest.approx(0.9)


def test_what_is_shipped_is_calibrated_on_tasks_left_out_and_better_than_the_rules_and_the_base_rate() -> None:
    judged = hold_out(shipped_probes(), lambda probe: probe.task)
    said = [(max(chances, key=lambda one: chances[one]), chances, true, rules) for chances, true, rules in judged.needs]
    assert calibration_error([Prediction(chances[need], need == true) for need, chances, true, _ in said]) <= 0.1
    assert sum(need == true for need, _, true, _ in said) > sum(rules == true for *_, true, rules in said)
    assert mean_nll(judged.words) < mean_nll(base_rate(judged.words))


# --- in a diagnosis --------------------------------------------------------------------------------


def judged_rows(count: int) -> tuple[list[Example], Evaluation]:
    rows = [Example(name=f"validation:{n}", question=f"Held question {n}?", answer=f"Name{n}") for n in range(count)]
    scores = tuple(ExampleScore(example=one.name, output="no", content=0, style=0) for one in rows)
    return rows, Evaluation(candidate=Candidate(prompt="p"), split="validation", scores=scores)


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [[math.cos(len(text)), math.sin(len(text))] for text in texts]


def test_features_are_finite_and_bounded_on_a_real_graph_of_computation(backbone: Callable[..., Backbone]) -> None:
    rows, evaluation = judged_rows(5)
    odd = [
        Example(name="validation:x", question="", answer=""),
        Example(name="validation:y", question="?", answer="🜁 ß"),
    ]
    scores = [*evaluation.scores, *(ExampleScore(example=one.name, output="", content=0, style=0.5) for one in odd)]
    for train in (TRAIN, TRAIN[:1], []):
        probing = FeatureExtractor(backbone(), SCORERS, train, embed)
        found = probing.features(list(zip([*rows, *odd], scores, strict=True)), SEED, None, 0, thorough=True)
        assert len(found) == 7
        named = {tuple(one) for row, one in zip([*rows, *odd], found, strict=True) if row not in odd[:1]}
        assert len(named) == 1  # all rows have the same features
        assert "shown_answer" not in found[-2], "where nothing can be scored: none"
        assert all(math.isfinite(value) for one in found for value in one.values())
        assert all(0 <= one[name] <= 1 for one in found for name in ("alike", "right", "formed", "common", "demos"))


def scripted(found: Sequence[dict[str, float]], probes: Sequence[Probe]) -> Classifier:
    """A classifier whose rows have these features."""
    classifier = Classifier(None, SCORERS, TRAIN, probes=probes)  # type: ignore[arg-type]
    names = [f"validation:{n}" for n in range(len(found))]
    known = dict(zip(names, found, strict=True))
    vars(classifier)["features"] = lambda rows, *_: [known[example.name] for example, _ in rows]
    return classifier


GAPS = {"whole": 3.0, "shown_whole": 1.0, "shown_answer": 9.0}


def with_gaps(rows: Sequence[Probe]) -> list[Probe]:
    draw = random.Random(3)
    noise = lambda: {name: value + draw.gauss(0, 1) for name, value in GAPS.items()}  # noqa: E731
    return [one.model_copy(update={"features": one.features | noise()}) for one in rows]


def test_a_diagnosis_says_who_made_it_and_how_sure_it_is() -> None:
    rows, evaluation = judged_rows(4)
    told = [row(1.5) | GAPS, row(-1.5) | GAPS, row(1.5) | GAPS, row(50.0) | GAPS]
    found = scripted(told, with_gaps(probes(160, lambda telling: telling > 0))).diagnose(evaluation, rows, SEED, 0)
    by_name = {one.example: one for one in found.examples}
    assert found.by == "model"
    assert [by_name[f"validation:{n}"].need for n in range(4)] == ["style", "both", "style", "both"]
    assert by_name["validation:3"].chances == {}  # a stranger among them is left to the rules
    assert found.confidence is not None and 0.8 < found.confidence <= 1


def test_rules_decide_where_nothing_was_learned_and_where_most_rows_are_strangers() -> None:
    rows, evaluation = judged_rows(3)
    learned = with_gaps(probes(160, lambda telling: telling > 0))
    for told, known in (([row(1.5) | GAPS] * 3, learned[: LEAST - 1]), ([row(50.0) | GAPS] * 3, learned)):
        found = scripted(told, known).diagnose(evaluation, rows, SEED, 0)
        assert (found.by, found.confidence) == ("rules", None)
        assert {(one.need, len(one.chances)) for one in found.examples} == {("both", 0)}


def test_what_a_run_saw_itself_changes_its_next_diagnosis() -> None:
    rows, evaluation = judged_rows(1)
    classifier = scripted([row(0.4) | GAPS], with_gaps(probes(160, lambda telling: telling > 0)))
    own = [one.model_copy(update={"words": False, "own": True}) for one in with_gaps(probes(12, bool, seed=9))]
    first = classifier.diagnose(evaluation, rows, SEED, 0).examples[0]
    second = classifier.diagnose(evaluation, rows, SEED, 0, own=own).examples[0]
    assert second.chances["both"] > first.chances["both"]


def test_rows_whose_features_are_known_are_not_probed_again() -> None:
    rows, evaluation = judged_rows(3)
    known = {one.name: row(1.0) | GAPS for one in rows}
    classifier = Classifier(None, SCORERS, TRAIN, probes=())  # type: ignore[arg-type]  # asks no model
    found = classifier.diagnose(evaluation, rows, SEED, 0, known=known)
    assert {one.weight_gap for one in found.examples} == {9.0}
