"""What repairs a failing row: fitted to rows of known chances; without effect where too little is known."""

import math
import random
import zlib
from collections.abc import Callable, Sequence

import pytest

from agent.config.scorers import Contains, StartsWith
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate, Example, Prompt
from agent.records.signal import Need, Probe
from bench.studies.calibration import Prediction, base_rate, calibration_error, hold_out, mean_nll, table
from eval.scoring import TaskScorers
from memory.retrieval import NearestRows
from tools.diagnosis.classify import Classifier
from tools.diagnosis.features import SHOWN, FeatureExtractor
from tools.diagnosis.needs import LEAST, NeedModel, fit, shipped_probes
from tools.model.backbone import Backbone
from tools.model.retrieving import RetrievingLanguageModel

SCORERS = TaskScorers([Contains(kind="contains")], [StartsWith(kind="starts_with", text="ANSWER: ")])
TRAIN = [Example(name=f"train:{n}", question=f"Train question {n}?", answer=f"{n}") for n in range(6)]
SEED = Prompt(system="Answer.")
Made = Callable[[float], bool]


def probes(count: int, repaired: Made, seed: int = 0, tasks: int = 4, own: bool = False) -> list[Probe]:
    """Rows of one kind (neither right nor as asked): how well the answer is known tells all, the trials nothing."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        gap = draw.uniform(0, 4)
        features = row(gap, near_right=float(draw.random() < 0.5), right=draw.choice((0.0, 0.5, 1.0)))
        made.append(
            Probe(task=f"t{number % tasks}", model="m", pair="p", example=f"validation:{number}", features=features,
                  rules="both", words=repaired(gap), own=own)
        )  # fmt: skip
    return made


def row(gap: float, **changes: float) -> dict[str, float]:
    """Features of a row whose answer has this NLL under few-shot examples, in nats per token."""
    return {"content": 0.0, "style": 0.0, "near_right": 0.5, "right": 0.5, "shown_answer": gap} | changes


def is_known(gap: float) -> bool:
    return gap < 2


def test_separable_rows_are_separated() -> None:
    needs = NeedModel(probes(120, is_known))
    assert needs.chances(row(0.5))["style"] > 0.9 > 0.1 > needs.chances(row(3.5))["style"]


def test_chances_are_those_that_the_rows_were_drawn_with() -> None:
    draw = random.Random(1)
    chance = lambda gap: 1 / (1 + math.exp(1.5 * (gap - 2)))  # noqa: E731
    needs = NeedModel(probes(600, lambda gap: draw.random() < chance(gap)))
    fresh = probes(2000, lambda gap: draw.random() < chance(gap), seed=7)
    assert needs.words_help
    predictions = [Prediction(needs.words_help.chance(probe.features), bool(probe.words)) for probe in fresh]
    assert calibration_error(predictions) < 0.05
    for gap in (0.5, 2.0, 3.5):
        assert needs.words_help.chance(row(gap)) == pytest.approx(chance(gap), abs=0.1)


def test_what_tells_nothing_gives_chances_near_the_share() -> None:
    draw = random.Random(2)
    needs = NeedModel(probes(300, lambda _: draw.random() < 0.3))
    assert all(needs.chances(row(gap))["style"] == pytest.approx(0.3, abs=0.12) for gap in (0, 2, 4))


@pytest.mark.parametrize(("style", "rest"), [(0.0, "both"), (1.0, "content")])
def test_what_words_do_not_repair_lacks_content_and_style_too_where_it_fails(style: float, rest: Need) -> None:
    made = [probe.model_copy(update={"features": probe.features | {"style": style}}) for probe in probes(120, is_known)]
    needs = NeedModel(made)
    chances = needs.chances(row(3.5, style=style))
    assert sum(chances.values()) == pytest.approx(1)
    assert max(chances, key=lambda need: chances[need]) == rest
    assert needs.words_help and chances["style"] == needs.words_help.chance(row(3.5, style=style))


def test_with_too_few_rows_or_of_one_outcome_nothing_is_fitted() -> None:
    assert fit(probes(LEAST - 1, is_known)) is None
    assert fit(probes(200, lambda _: True)) is None
    assert fit([]) is None
    assert fit(probes(LEAST, is_known)) is not None
    with pytest.raises(ValueError, match="too few"):
        NeedModel([]).chances(row(1.0))


def test_strangers_are_not_known() -> None:
    needs = NeedModel(probes(120, is_known))
    assert needs.knows(row(1.0))
    assert needs.knows(row(4.5))  # a little further than any seen
    assert not needs.knows(row(11.0))
    assert not needs.knows(row(1.0, style=1.0))  # of a kind that was never probed
    assert not needs.knows({name: value for name, value in row(1.0).items() if name != "near_right"})


def test_rows_of_the_own_run_change_the_chances_and_weigh_more() -> None:
    others = probes(120, is_known)
    contrary = [
        probe.model_copy(update={"words": False})
        for probe in probes(12, bool, seed=5)
        if is_known(probe.features["shown_answer"])
    ]
    before, foreign = NeedModel(others), NeedModel([*others, *contrary])
    own = NeedModel([*others, *(probe.model_copy(update={"own": True}) for probe in contrary)])
    chances = [needs.chances(row(1.0))["style"] for needs in (before, foreign, own)]
    assert chances[0] > chances[1] > chances[2]


def test_a_task_that_is_held_out_is_predicted_without_it() -> None:
    rows = probes(400, is_known, tasks=8)
    turned = [line.model_copy(update={"words": not line.words}) if line.task == "t0" else line for line in rows]
    judged = hold_out(turned, lambda probe: probe.task)
    by_task = {line.task for line in turned}
    assert len(judged.needs) + judged.unknown == len(rows)
    right = sum(max(chances, key=lambda need: chances[need]) == true for chances, true, _ in judged.needs)
    assert right / len(judged.needs) == pytest.approx(1 - 1 / len(by_task), abs=0.1)
    assert table({"tasks": judged}).count("\n") == 3


def test_calibration_error_is_the_distance_from_the_frequency() -> None:
    assert calibration_error([Prediction(0.5, place % 2 == 0) for place in range(100)], bins=1) == pytest.approx(0)
    assert calibration_error([Prediction(0.9, False)] * 10) == pytest.approx(0.9)


def test_what_is_shipped_is_better_on_tasks_left_out_than_the_rules_the_commonest_need_and_the_base_rate() -> None:
    judged = hold_out(shipped_probes(), lambda probe: probe.task)
    right = sum(row.likeliest == row.need for row in judged.needs)
    style = sum(row.need == "style" for row in judged.needs)
    assert judged.unknown == 0 and right > max(style, len(judged.needs) - style)
    assert right > sum(row.by_rules == row.need for row in judged.needs)
    assert mean_nll(judged.words) < mean_nll(base_rate(judged.words))
    assert calibration_error(judged.words) < 0.2, "of a task that it never saw"


def test_what_is_shipped_is_calibrated_on_rows_left_out_of_tasks_it_knows() -> None:
    judged = hold_out(shipped_probes(), lambda probe: hash_of(probe.task, probe.example) % 5)
    assert calibration_error(judged.words) < 0.1


def hash_of(*names: str) -> int:
    return zlib.crc32(" ".join(names).encode())


# --- in a diagnosis --------------------------------------------------------------------------------


def judged_rows(count: int) -> tuple[list[Example], Evaluation]:
    rows = [Example(name=f"validation:{n}", question=f"Held question {n}?", answer=f"Name{n}") for n in range(count)]
    scores = tuple(ExampleScore(example=row.name, output="no", content=0, style=0) for row in rows)
    return rows, Evaluation(candidate=Candidate(prompt="p"), split="validation", scores=scores)


def test_features_are_finite_and_bounded_on_a_real_graph_of_computation(backbone: Callable[..., Backbone]) -> None:
    rows, evaluation = judged_rows(5)
    odd = [
        Example(name="validation:x", question="", answer=""),
        Example(name="validation:y", question="?", answer="🜁 ß"),
    ]
    scores = [
        *evaluation.scores,
        *(ExampleScore(example=row.name, output="", content=0, style=0.5) for row in odd),
    ]
    embed = lambda texts: [[math.cos(len(text)), math.sin(len(text))] for text in texts]  # noqa: E731
    for train, retrieves in ((TRAIN, True), (TRAIN, False), (TRAIN[:1], True), ([], False)):
        model = RetrievingLanguageModel(backbone(), NearestRows(train, SCORERS, embed))
        probing = FeatureExtractor(model, SCORERS, train, retrieves=retrieves)
        found = probing.features(list(zip([*rows, *odd], scores, strict=True)), SEED, None, 0)
        assert len(found) == 7
        named = {tuple(features) for row, features in zip([*rows, *odd], found, strict=True) if row not in odd[:1]}
        assert len(named) == 1  # all rows have the same features
        assert ("near_right" in found[0]) is (retrieves and len(train) > SHOWN)
        assert "shown_answer" not in found[-2], "where nothing can be scored: none"
        assert all(math.isfinite(value) for features in found for value in features.values())
        assert all(
            0 <= features[name] <= 1 for features in found for name in ("near_right", "right") if name in features
        )


def scripted(found: Sequence[dict[str, float]], probes: Sequence[Probe]) -> Classifier:
    """A classifier whose rows have these features."""
    classifier = Classifier(None, SCORERS, TRAIN, probes=probes)  # type: ignore[arg-type]
    names = [f"validation:{n}" for n in range(len(found))]
    known = dict(zip(names, found, strict=True))
    vars(classifier)["features"] = lambda rows, *_: [known[example.name] for example, _ in rows]
    return classifier


GAPS = {"whole": 3.0, "shown_whole": 1.0}


def with_gaps(rows: Sequence[Probe]) -> list[Probe]:
    return [probe.model_copy(update={"features": probe.features | GAPS}) for probe in rows]


def test_a_diagnosis_says_who_made_it_and_how_sure_it_is() -> None:
    rows, evaluation = judged_rows(4)
    features = [row(0.5) | GAPS, row(3.5) | GAPS, row(0.5) | GAPS, row(50.0) | GAPS]
    found = scripted(features, with_gaps(probes(160, is_known))).diagnose(evaluation, rows, SEED, 0)
    by_name = {probed.example: probed for probed in found.examples}
    assert found.by == "model"
    assert [by_name[f"validation:{n}"].need for n in range(4)] == ["style", "both", "style", "both"]
    assert by_name["validation:3"].chances == {}  # a stranger among them is left to the rules
    assert found.confidence is not None and 0.8 < found.confidence <= 1


def test_rules_decide_where_nothing_was_learned_and_where_most_rows_are_strangers() -> None:
    rows, evaluation = judged_rows(3)
    learned = with_gaps(probes(160, is_known))
    for features, known in (([row(9.0) | GAPS] * 3, learned[: LEAST - 1]), ([row(50.0) | GAPS] * 3, learned)):
        found = scripted(features, known).diagnose(evaluation, rows, SEED, 0)
        assert (found.by, found.confidence) == ("rules", None)
        assert {(probed.need, len(probed.chances)) for probed in found.examples} == {("both", 0)}


def test_what_a_run_saw_itself_changes_its_next_diagnosis() -> None:
    rows, evaluation = judged_rows(1)
    classifier = scripted([row(1.6) | GAPS], with_gaps(probes(160, is_known)))
    own = [probe.model_copy(update={"words": False, "own": True}) for probe in with_gaps(probes(12, bool, seed=9))]
    first = classifier.diagnose(evaluation, rows, SEED, 0).examples[0]
    second = classifier.diagnose(evaluation, rows, SEED, 0, own=own).examples[0]
    assert second.chances["both"] > first.chances["both"]


def test_rows_whose_features_are_known_are_not_probed_again() -> None:
    rows, evaluation = judged_rows(3)
    known = {example.name: row(9.0) | GAPS for example in rows}
    classifier = Classifier(None, SCORERS, TRAIN, probes=())  # type: ignore[arg-type]  # asks no model
    found = classifier.diagnose(evaluation, rows, SEED, 0, known=known)
    assert {example.weight_gap for example in found.examples} == {9.0}
