"""The reward classifier: its table, its probe against scripted likelihoods, and the whole on a tiny model."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.scorers import Contains, StartsWith
from agent.protocols import Asked, LanguageModel
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate, Demo, Example, Prompt, Retrieval
from agent.records.rounds import Spend
from agent.records.signal import Need
from eval.scoring import TaskScorers
from tools.diagnosis.classify import (
    FIRST,
    KNOWN_BELOW,
    PROBED,
    WORDS_HELP_FROM,
    Classifier,
    diagnose_by_rewards,
    need_by_rules,
)
from tools.diagnosis.features import SHOWN, is_complete
from tools.model.backbone import Backbone

SCORERS = TaskScorers([Contains(kind="contains")], [StartsWith(kind="starts_with", text="ANSWER: ")])
TRAIN = [Example(name=f"train:{n}", question=f"Train question {n}?", answer=f"{n}") for n in range(6)]
HELD = [Example(name=f"validation:{n}", question=f"Held question {n}?", answer=f"Name{n}") for n in range(30)]
SEED = Prompt(system="Answer.")
GAPS = st.floats(0, 20)


def by_rules(model: LanguageModel) -> Classifier:
    """A classifier that has no rows to learn from."""
    return Classifier(model, SCORERS, TRAIN, probes=())


class Scripted:
    """A model whose likelihoods follow from what it is shown; remembers what it was asked."""

    def __init__(self, bare: float = 6.0, taught: float = 2.0, rest: float = 9.0) -> None:
        self.values = {"bare": bare, "taught": taught, "rest": rest}
        self.asked: list[tuple[Prompt, list[str], list[tuple[str, str]], str | None]] = []
        self.tried: list[tuple[Prompt, list[str], str | None]] = []

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: object = None,
    ) -> tuple[list[str], Spend]:
        self.tried.append((prompt, [example.name for example in examples], adapter))
        return ["no"] * len(examples), Spend()

    def generate_each(self, asked: Sequence[Asked], **options: Any) -> list[tuple[list[str], Spend]]:
        return [self.generate(*each, **options) for each in asked]

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> tuple[list[float], Spend]:
        self.asked.append((prompt, [example.name for example in examples], list(completions), adapter))
        whole = "taught" if prompt.demos else "bare"
        return [self.values["rest" if context else whole] for context, _ in completions], Spend()


def judged(rows: Sequence[Example], content: float = 0, style: float = 0, adapter: str | None = None) -> Evaluation:
    scores = [ExampleScore(example=row.name, output="no", content=content, style=style) for row in rows]
    return Evaluation(candidate=Candidate(prompt="p", adapter=adapter), split="validation", scores=tuple(scores))


@pytest.mark.parametrize(
    ("content", "style", "prompt_gap", "weight_gap", "lacks"),
    [
        (1, 0, 0.0, 9.0, "style"),  # right, in the wrong form
        (0, 1, 0.0, 9.0, "content"),  # in form, and not known
        (0, 1, 3.0, 9.0, "content"),  # words help, but the answer stays unknown
        (0, 1, 0.5, 1.0, "content"),  # known, and words do not help
        (0, 1, 3.0, 1.0, "style"),  # known, and asked badly
        (0, 0, 3.0, 1.0, "style"),  # known, and in no form
        (0, 0, 3.0, 9.0, "both"),
    ],
)
def test_what_an_example_lacks(content: float, style: float, prompt_gap: float, weight_gap: float, lacks: Need) -> None:
    score = ExampleScore(example="v:1", output="", content=content, style=style)
    assert need_by_rules(score, prompt_gap, weight_gap) == lacks


@given(st.floats(0, 1), st.floats(0, 1), GAPS, GAPS)
def test_what_the_weights_do_not_know_is_never_left_to_words(
    content: float, style: float, prompt_gap: float, weight_gap: float
) -> None:
    lacks = need_by_rules(ExampleScore(example="v:1", output="", content=content, style=style), prompt_gap, weight_gap)
    if content < 1 and weight_gap >= KNOWN_BELOW:
        assert lacks != "style"
    if content == 1 or (weight_gap < KNOWN_BELOW and prompt_gap >= WORDS_HELP_FROM):
        assert lacks == "style"


def test_the_gaps_are_what_demonstrations_take_away_and_what_stays() -> None:
    model = Scripted(bare=6.0, taught=2.0, rest=9.0)
    found = by_rules(model).diagnose(judged(HELD[:2], adapter="a1"), HELD[:2], SEED, seed=0)
    assert [(probed.prompt_gap, probed.weight_gap, probed.need) for probed in found.examples] == [
        (4.0, 9.0, "both")
    ] * 2
    assert (found.prompt_gap, found.weight_gap, found.share("content"), found.share("style")) == (4, 9, 1, 1)
    assert {adapter for *_, adapter in model.asked} == {"a1"}


def test_four_rows_that_need_the_same_speak_for_the_others_and_a_right_answer_for_itself() -> None:
    model, rows = Scripted(bare=6.0, taught=2.0, rest=9.0), HELD[:10]
    scores = judged(rows).scores
    right = tuple(score.model_copy(update={"content": 1}) for score in scores[:3])
    found = by_rules(model).diagnose(
        Evaluation(candidate=Candidate(prompt="p"), split="validation", scores=(*right, *scores[3:])),
        rows,
        SEED,
        seed=0,
    )
    needs = {probed.example: probed.need for probed in found.examples}
    assert needs == {row.name: "style" if place < 3 else "both" for place, row in enumerate(rows)}
    assert len({name for _, names, *_ in model.asked for name in names}) == FIRST
    assert sum(bool(probed.features) for probed in found.examples) == FIRST


def drawn_with_style(styles: Sequence[float], seed: int = 0) -> tuple[list[Example], Evaluation]:
    """Failing rows which the classifier draws in this order, with these styles."""
    rows = HELD[: len(styles)]
    drawn = [probed.example for probed in by_rules(Scripted()).diagnose(judged(rows), rows, SEED, seed).examples]
    by_name = dict(zip(drawn, styles, strict=True))
    made = judged(rows)
    scores = tuple(score.model_copy(update={"style": by_name[score.example]}) for score in made.scores)
    return rows, made.model_copy(update={"scores": scores})


@pytest.mark.parametrize(
    ("styles", "asked"),
    [
        ([1] * 4 + [0] * 6, 8),  # the first four hold their form, the rest does not
        ([0] * 4 + [1] * 6, 8),
        ([0, 1] * 5, 8),
        ([1] * 9 + [0] * 2, 6),  # of a kind with few rows all are asked
    ],
)
def test_rows_speak_only_for_those_whose_style_is_as_theirs(styles: list[float], asked: int) -> None:
    model, (rows, evaluation) = Scripted(bare=6.0, taught=2.0, rest=9.0), drawn_with_style(styles)
    found = by_rules(model).diagnose(evaluation, rows, SEED, seed=0)
    style = {score.example: score.style for score in evaluation.scores}
    assert [style[probed.example] for probed in found.examples] == styles
    assert [probed.need for probed in found.examples] == ["content" if holds else "both" for holds in styles]
    assert len({name for _, names, *_ in model.asked for name in names}) == asked


class Uneven(Scripted):
    """Knows the answers to some rows."""

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__(bare=6.0, taught=2.0, rest=9.0)
        self.known = set(known)

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> tuple[list[float], Spend]:
        found, spend = super().nll(prompt, examples, completions, adapter=adapter)
        return [1.0 if row.name in self.known else nats for row, nats in zip(examples, found, strict=True)], spend


def test_a_kind_whose_first_rows_differ_is_asked_whole_and_no_row_twice() -> None:
    rows, evaluation = drawn_with_style([1, 0] * 6)
    drawn = [probed.example for probed in by_rules(Scripted()).diagnose(evaluation, rows, SEED, seed=0).examples]
    failed = drawn[1::2]
    model = Uneven([failed[0], failed[5]])
    found = by_rules(model).diagnose(evaluation, rows, SEED, seed=0)
    needs = {probed.example: probed.need for probed in found.examples}
    assert [needs[name] for name in failed] == ["style", *["both"] * 4, "style"]
    assert {needs[name] for name in drawn[::2]} == {"content"}
    bare = [name for prompt, names, *_ in model.asked if not prompt.demos for name in names]
    assert sorted(bare) == sorted({*failed, *drawn[::2][:FIRST]})


def test_demonstrations_that_make_it_worse_are_no_gap() -> None:
    found = by_rules(Scripted(bare=2.0, taught=6.0)).diagnose(judged(HELD[:1]), HELD[:1], SEED, 0)
    assert found.prompt_gap == 0


class Narrow(Scripted):
    """Its window is too small for demonstrations beside a question."""

    def generate(self, prompt: Prompt, *args: Any, **kwargs: Any) -> tuple[list[str | None], Spend]:  # type: ignore[override]
        answers, spend = super().generate(prompt, *args, **kwargs)
        return [None if prompt.demos else answer for answer in answers], spend

    def nll(self, prompt: Prompt, *args: Any, **kwargs: Any) -> tuple[list[float | None], Spend]:  # type: ignore[override]
        found, spend = super().nll(prompt, *args, **kwargs)
        return [None if prompt.demos else nats for nats in found], spend


def test_what_does_not_fit_into_the_window_is_not_taken_for_known() -> None:
    found = by_rules(Narrow()).diagnose(judged(HELD[:2], style=1), HELD[:2], SEED, seed=0)
    assert [(probed.prompt_gap, probed.weight_gap, probed.need) for probed in found.examples] == [
        (None, None, "content")
    ] * 2
    assert all({"whole", "content"} <= probed.features.keys() for probed in found.examples)
    assert not any(
        {"shown_whole", "shown_answer", "right", "near_right"} & probed.features.keys() for probed in found.examples
    )
    assert not any(is_complete(probed.features) for probed in found.examples), "and nothing learns from it"
    assert all(
        is_complete(probed.features)
        for probed in by_rules(Scripted()).diagnose(judged(HELD[:2]), HELD[:2], SEED, 0).examples
    )


def test_a_row_that_was_not_answered_for_its_length_lacks_nothing_that_a_lever_could_give() -> None:
    evaluation = judged(HELD[:4])
    long = tuple(score.model_copy(update={"too_long": True}) for score in evaluation.scores[:1])
    evaluation = evaluation.model_copy(update={"scores": (*long, *evaluation.scores[1:])})
    for found in (
        by_rules(Scripted()).diagnose(evaluation, HELD[:4], SEED, 0),
        diagnose_by_rewards(evaluation, HELD[:4]),
    ):
        assert (found.failing, found.total) == (3, 4)
        assert HELD[0].name not in {probed.example for probed in found.examples}


def test_only_the_answers_own_text_is_scored_after_its_form() -> None:
    model = Scripted()
    rows = [HELD[3], Example(name="validation:a", question="Which?", answer="A")]
    by_rules(model).diagnose(judged(rows), rows, SEED, seed=0)
    (_, bare_names, bare, _), (_, names, taught, _) = model.asked
    whole = {("validation:3", ("", "ANSWER: Name3")), ("validation:a", ("", "ANSWER: A"))}
    answers = {("validation:3", ("ANSWER: ", "Name3")), ("validation:a", ("ANSWER: ", "A"))}
    assert set(zip(names, taught, strict=True)) == whole | answers
    assert set(zip(bare_names, bare, strict=True)) == whole


def test_demonstrations_are_train_rows_in_the_wanted_form() -> None:
    model = Scripted()
    by_rules(model).diagnose(judged(HELD[:3]), HELD[:3], SEED, seed=1)
    shown = {demo for prompt, *_ in model.asked for demo in prompt.demos}
    assert len(shown) == SHOWN
    assert shown <= {Demo(question=row.question, answer=f"ANSWER: {row.answer}") for row in TRAIN}


class Nearby(Scripted):
    """Answers to the point where it is shown rows near the question; to the same prompt with drawn ones it does not."""

    def generate(
        self, prompt: Prompt, examples: Sequence[Example], *, adapter: str | None, max_new_tokens: int,
        stop_early: object = None,
    ) -> tuple[list[str], Spend]:  # fmt: skip
        drawn, spend = super().generate(prompt, examples, adapter=adapter, max_new_tokens=max_new_tokens)
        return [f"ANSWER: {row.answer}" for row in examples] if prompt.retrieval else drawn, spend


def test_trial_answers_are_given_under_the_nearest_train_rows_and_under_drawn_ones() -> None:
    model = Nearby()
    classifier = Classifier(model, SCORERS, TRAIN, probes=(), retrieves=True)
    found = classifier.diagnose(judged(HELD[:3]), HELD[:3], SEED, seed=0)
    nearest, drawn = (prompt for prompt, *_ in model.tried)
    assert (nearest.retrieval, nearest.demos) == (Retrieval(k=SHOWN), ()) and nearest.system == SEED.system
    assert (drawn.retrieval, len(drawn.demos)) == (None, SHOWN)
    assert [(probed.features["near_right"], probed.features["right"]) for probed in found.examples] == [(1, 0.5)] * 3
    assert [prompt.retrieval for prompt, *_ in model.asked] == [None, Retrieval(k=SHOWN)]


def test_a_prompt_that_retrieves_is_probed_as_it_is() -> None:
    model, prompt = Nearby(), SEED.model_copy(update={"retrieval": Retrieval(k=4)})
    classifier = Classifier(model, SCORERS, TRAIN, probes=(), retrieves=True)
    classifier.diagnose(judged(HELD[:3]), HELD[:3], prompt, seed=0)
    assert [asked.retrieval for asked, *_ in model.asked] == [Retrieval(k=4)] * 2


def test_where_nothing_can_be_retrieved_all_trials_are_under_drawn_rows() -> None:
    model = Nearby()
    found = by_rules(model).diagnose(judged(HELD[:3]), HELD[:3], SEED, seed=0)
    assert [(prompt.retrieval, len(prompt.demos)) for prompt, *_ in model.tried] == [(None, SHOWN)] * 2
    assert model.tried[0][0].demos != model.tried[1][0].demos
    assert all("near_right" not in probed.features and probed.features["right"] == 0 for probed in found.examples)


def test_a_train_row_that_is_probed_never_demonstrates_itself() -> None:
    model = Scripted()
    by_rules(model).diagnose(judged(TRAIN[:3]), TRAIN[:3], SEED, seed=0)
    shown = {demo.question for prompt, *_ in model.tried for demo in prompt.demos}
    assert shown and shown <= {row.question for row in TRAIN[3:]}


def test_a_prompt_with_demonstrations_is_probed_as_it_is() -> None:
    model, demos = Scripted(), (Demo(question="One?", answer="ANSWER: 1"), Demo(question="Two?", answer="ANSWER: 2"))
    prompt = SEED.model_copy(update={"demos": demos})
    found = by_rules(model).diagnose(judged(HELD[:3]), HELD[:3], prompt, seed=0)
    assert {asked for asked, *_ in model.asked} == {prompt}
    assert found.prompt_gap == 0


def test_many_failures_are_sampled_by_seed_and_all_counted() -> None:
    def diagnose(seed: int) -> list[str]:
        found = by_rules(Scripted()).diagnose(judged(HELD), HELD, SEED, seed)
        assert (found.failing, found.total) == (30, 30)
        return [probed.example for probed in found.examples]

    assert len(set(diagnose(0))) == PROBED
    assert diagnose(0) == diagnose(0) != diagnose(1)


def test_only_failing_rows_are_probed() -> None:
    model, evaluation = Scripted(), judged(HELD[:4])
    passing = ExampleScore(example=HELD[1].name, output="ANSWER: Name1", content=1, style=1)
    scores = (evaluation.scores[0], passing, *evaluation.scores[2:])
    mixed = evaluation.model_copy(update={"scores": scores})
    found = by_rules(model).diagnose(mixed, HELD[:4], SEED, 0)
    assert (found.failing, found.total) == (3, 4)
    assert all(HELD[1].name not in names for _, names, *_ in model.asked)


def test_where_nothing_fails_the_model_is_not_asked() -> None:
    model = Scripted()
    found = by_rules(model).diagnose(judged(HELD[:3], 1, 1), HELD[:3], SEED, 0)
    assert (found.failing, found.examples, found.share("content"), model.asked) == (0, (), 0, [])


def test_the_whole_on_a_tiny_model(backbone: Callable[..., Backbone]) -> None:
    found = by_rules(backbone()).diagnose(judged(HELD[:5]), HELD[:5], SEED, seed=0)
    assert {probed.example for probed in found.examples} == {row.name for row in HELD[:5]}
    assert all(probed.prompt_gap is not None and probed.prompt_gap >= 0 for probed in found.examples)
    assert all(probed.weight_gap is not None and probed.weight_gap > 0 for probed in found.examples)
