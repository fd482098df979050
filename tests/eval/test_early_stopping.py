"""Stopping at the scorer's need: what is settled stays so, and a run's scores are those of the whole answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agent.config.scorers import ContentScorer, StyleScorer
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate, Example, Prompt
from agent.records.rounds import Spend
from eval.runner import Runner
from eval.scoring import TaskScorers
from eval.tasks.task import load_task
from tools.model.backbone import Backbone
from ui.commands.evaluate import Unkept

CONTENT: TypeAdapter[ContentScorer] = TypeAdapter(ContentScorer)
STYLE: TypeAdapter[StyleScorer] = TypeAdapter(StyleScorer)

EXACT = {"kind": "exact"}
CONTAINS = {"kind": "contains"}
STARTS = {"kind": "starts_with", "text": "ANSWER: "}
JSON = {"kind": "json", "keys": ["answer"]}
SCHEMA = {"kind": "json", "schema": {"type": "object"}, "show": '{"answer": "{answer}"}'}
BRIEF = {"kind": "words", "most": 2}
FORBID = {"kind": "forbid", "words": ["no", "!"]}
CONTENTS: list[dict[str, Any]] = [
    EXACT, CONTAINS, {"kind": "exact", "extract": "(?s)ANSWER: (.*)"}, {"kind": "number"}, {"kind": "choice"},
    {"kind": "f1"}, {"kind": "json_fields"},
]  # fmt: skip
STYLES: list[dict[str, Any]] = [
    STARTS, JSON, SCHEMA, FORBID, {"kind": "regex", "pattern": r"^\w+$"},
    {"kind": "words", "most": 3}, {"kind": "words", "least": 2}, {"kind": "words", "least": 2, "most": 3},
    {"kind": "bullets", "most": 1}, {"kind": "bullets", "least": 1}, {"kind": "bullets", "least": 1, "most": 2},
]  # fmt: skip

ANSWERS = st.sampled_from(
    [
        "Paris",
        "new York",
        "C++",
        "é",
        "B",
        "5",
        "no Paris",
        " ",
        "東京",
        'say "é"',
        '{"answer": "Paris"}',
        "[1, 5]",
        "3/4",
    ]
)
PIECES = [
    " ", "\n", "\u2003", "ANSWER:", "Paris", "par", "is", "New", "York", "C++", "e", "\u0301", "é", "B", "(A)", "5",
    ".", ",", "#### ", "no", "not", "!", "- ", "* ", "```", "{", "}", "[", "]", '"', '"answer"', ": ",
    '{"answer": "Paris"}', "nul", "l", "-", "Inf", "inity", "N", "aN", "1e", "\\", "\\ud83d", "\\ude", "00",
    "Sure! Here it is:", "好", "東", "東京", "3/4", "sqrt", "[1,", " 5]", "\\u00e9", '\\"', "say",
    "analysis", "assistantfinal", "<think>", "</think>", "\n<think>", "<thin", "[THINK]",
    "[/THINK]", '{"answer":"Paris"}',
    '{"answer"', ': "Paris"}',
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=20)


def scorers(content: list[dict[str, Any]], style: list[dict[str, Any]]) -> TaskScorers:
    return TaskScorers([CONTENT.validate_python(one) for one in content], [STYLE.validate_python(one) for one in style])


def question(answer: str) -> Example:
    return Example(name="train:1", question="?", answer=answer)


def verdict(judge: TaskScorers, row: Example, text: str) -> tuple[Any, ...]:
    """All that a text is judged by."""
    score = judge.score(row, text)
    return score.content, score.style, score.merit, score.faults, judge.faults(text), judge.instructions(text)


def check(judge: TaskScorers, row: Example, text: str, cut: int) -> None:
    """What is settled of the text's first bytes holds for all of it; both come stripped, as from a model."""
    said = text.encode()[:cut].decode(errors="replace").strip()
    if judge.may_stop(row, said):
        assert verdict(judge, row, said) == verdict(judge, row, text.strip())


@pytest.mark.parametrize("kind", CONTENTS, ids=str)
@given(answer=ANSWERS, text=TEXTS, cut=st.integers(0, 60))
@settings(max_examples=200)
def test_no_continuation_changes_a_settled_content_score(
    kind: dict[str, Any], answer: str, text: str, cut: int
) -> None:
    check(scorers([kind], []), question(answer), text, cut)


@pytest.mark.parametrize("kind", STYLES, ids=str)
@given(text=TEXTS, cut=st.integers(0, 60))
@example(text='"\\u1234 and more"', cut=9)
@example(text='{"answer": "Paris is the capital"}', cut=31)
@example(text='["Here is 1.5e10 of it", -Infinity]', cut=31)
@settings(max_examples=200)
def test_no_continuation_changes_a_settled_style_score_or_its_sentence(
    kind: dict[str, Any], text: str, cut: int
) -> None:
    # The content is settled from the first word on, so that only the style has a say.
    check(scorers([EXACT], [kind]), question("§"), text, cut)


@given(
    st.lists(st.sampled_from(CONTENTS[:2]), min_size=1, max_size=2),
    st.lists(st.sampled_from(STYLES), max_size=2),
    ANSWERS,
    TEXTS,
    st.integers(0, 60),
)
def test_several_scorers_are_settled_together(
    content: list[dict[str, Any]], style: list[dict[str, Any]], answer: str, text: str, cut: int
) -> None:
    check(scorers(content, style), question(answer), text, cut)


@pytest.mark.parametrize(
    ("content", "style", "open_yet", "settled"),
    [
        (EXACT, None, "paris is", "Paris is it"),
        (EXACT, None, "Rome", "Rome is"),
        (CONTAINS, None, "It is Paris", "It is Paris now"),
        (CONTAINS, None, "その首都はPari", "その首都はParisです それは"),
        (EXACT, STARTS, "The capital", "The capital of France"),
        (CONTAINS, STARTS, "ANSWER: Paris", "ANSWER: Paris and"),
        (EXACT, BRIEF, "It is Par", "It is Paris which"),
        (EXACT, {"kind": "words", "least": 2}, "It is", "It is Paris"),
        (EXACT, FORBID, "oh no, I", "oh no ! I"),
        (EXACT, {"kind": "bullets", "most": 1}, "- a\n- b", "- a\n- b c"),
        (EXACT, {"kind": "bullets"}, "- a", "- a\nb"),
        (EXACT, JSON, '{"answer": "Paris"} Sure!', '{"answer": "Paris"} That is the whole answer.'),
        (EXACT, JSON, "Sure! Here", "Sure! Here is it"),
        (EXACT, JSON, "```json", "```json {"),
    ],
)
def test_a_text_is_settled_at_the_word_that_decides(
    content: dict[str, Any], style: dict[str, Any] | None, open_yet: str, settled: str
) -> None:
    judge = scorers([content], [style] if style else [])
    assert not judge.may_stop(question("Paris"), open_yet)
    assert judge.may_stop(question("Paris"), settled)
    assert not judge.may_stop(question("Paris"), settled + " \N{REPLACEMENT CHARACTER}")


def test_a_json_answer_is_settled_by_what_can_be_no_json_with_its_value() -> None:
    judge, row = scorers([EXACT], []), question('{"answer": "Paris", "unit": ""}')
    for open_yet in ('{"unit": "", "answer":', '{ "answer": "Rome" } ', '{"answer": "Paris", "unit": ""} '):
        assert not judge.may_stop(row, open_yet + " ")
    assert judge.may_stop(row, "Sure! Here")
    assert judge.may_stop(row, '{"answer": "Paris"} That is the whole answer.')


@pytest.mark.parametrize(
    "thought", ["<think>It is Paris ", "<think>Rome?</think> It is Paris now", "analysis: Paris is"]
)
def test_while_a_model_may_think_nothing_is_settled(thought: str) -> None:
    assert not scorers([CONTAINS], []).may_stop(question("Paris"), thought)


@pytest.mark.parametrize("kind", CONTENTS[2:], ids=str)
def test_what_a_later_word_may_change_is_never_settled(kind: dict[str, Any]) -> None:
    assert not scorers([EXACT, kind], []).may_stop(question("B"), "ANSWER: B\n#### 5 is the answer")


@pytest.mark.parametrize("name", ["llama", "lfm2"])
def test_a_run_has_the_scores_of_whole_answers_for_fewer_tokens(
    name: str, backbone: Callable[..., Backbone], tiny_task: Callable[..., Path]
) -> None:
    """Packed and padded."""
    task = load_task(tiny_task(content=[EXACT], style=[BRIEF], generation={"max_new_tokens": 24}))

    def measured(whole: bool) -> tuple[Evaluation, int]:
        spends: list[Spend] = []
        ours = backbone(name, batch_size=3, charge=spends.append)
        runner = Runner(task, ours, lambda _: Prompt(system="Answer the question."), Unkept(), whole)
        evaluation = runner(Candidate(prompt="seed"), "validation")
        return evaluation, sum(spends, Spend()).generated_tokens

    (long, many), (short, few) = measured(whole=True), measured(whole=False)
    assert few < many
    assert short.scores == tuple(
        whole.model_copy(update={"output": cut.output}) for whole, cut in zip(long.scores, short.scores, strict=True)
    )
    for whole, cut in zip(long.scores, short.scores, strict=True):
        assert whole.output.startswith(cut.output)
        assert whole.output == cut.output or task.scorers.may_stop(question("x"), cut.output)
    assert len({len(score.output) for score in short.scores}) > 1  # some leave the batch before others
