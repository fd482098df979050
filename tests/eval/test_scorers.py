"""What counts as right, what counts as well formed, and what is said about it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agent.config.scorers import ContentScorer, Rated, StyleScorer
from agent.errors import BadInput
from agent.protocols import Rater, Rating
from agent.reasoning import spoken
from agent.records.examples import Example
from eval.scoring import TaskScorers

CONTENT: TypeAdapter[ContentScorer] = TypeAdapter(ContentScorer)
STYLE: TypeAdapter[StyleScorer] = TypeAdapter(StyleScorer)

# Without thoughts, which stay in front of the form: Hypothesis also draws strings of our modules, such as "[THINK]".
answers = st.text(min_size=1).filter(str.strip).filter(lambda text: spoken(text) == text)


def scorers(*style: dict[str, Any], content: tuple[dict[str, Any], ...] = ({"kind": "contains"},)) -> TaskScorers:
    return TaskScorers(
        [CONTENT.validate_python(settings) for settings in content],
        [STYLE.validate_python(settings) for settings in style],
    )


def question(answer: str) -> Example:
    return Example(name="train:1", question="?", answer=answer)


def content(output: str, answer: str, **settings: Any) -> float:
    return scorers(content=(settings,)).score(question(answer), output).content


# --- content -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "answer", "extract", "right"),
    [
        (" PARIS\n", "Paris", None, 1),
        ("Paris.", "Paris", None, 0),
        ("ANSWER: Paris", "Paris", "ANSWER: (.*)", 1),
        ("It is 42, I think", "42", r"\d+", 1),
        ("no number", "42", r"\d+", 0),
        ("b", "b", "(a)|b", 0),
    ],
)
def test_exact(output: str, answer: str, extract: str | None, right: float) -> None:
    assert content(output, answer, kind="exact", extract=extract) == right


@pytest.mark.parametrize(
    ("output", "answer", "right"),
    [
        ("It is New\n york!", "new York", 1),
        ("Parisian", "Paris", 0),
        ("written in C++.", "C++", 1),
        ("Cafe\u0301", "Caf\u00e9", 1),
        ("a.c", "abc", 0),
    ],
)
def test_contains_whole_words(output: str, answer: str, right: float) -> None:
    assert content(output, answer, kind="contains") == right


@pytest.mark.parametrize(
    ("output", "answer", "right"),
    [
        ("1,000.0", "1000", 1),
        ("It costs $1,000.", "#### 1000", 1),
        ("first 5 then\n#### 12\n", "12", 1),
        ("#### 1\n#### 12 (of 30)", "12", 1),
        ("50%", "50", 1),
        ("-3", "3", 0),
        ("\N{MINUS SIGN}3", "-3", 1),
        ("-$3.50", "-3.5", 1),
        ("between 5-10", "10", 1),
        ("1,2,3", "3", 1),
        ("1.5e3", "1500", 1),
        (".5", "0.50", 1),
        ("1e9999", "1", 0),
        ("none", "3", 0),
        ("none", "none", 0),
        ("the answer is 7\n####", "7", 1),
    ],
)
def test_number(output: str, answer: str, right: float) -> None:
    assert content(output, answer, kind="number") == right


@given(st.decimals(-(10**9), 10**9, places=3), st.text("abc .:", max_size=9))
def test_a_number_is_the_same_however_it_is_written(value: Any, words: str) -> None:
    assert content(f"1 {words} #### ${value:,} dollars.", str(value), kind="number") == 1
    assert content(f"7 {words} is {value:,}.", f"{value:.5f}", kind="number") == 1
    assert content(f"{value + 1}", str(value), kind="number") == 0


@pytest.mark.parametrize(
    ("output", "answer", "right"),
    [
        ("B", "(B)", 1),
        ("b.", "B", 1),
        ("The answer is (B) because (A) is wrong", "B", 1),
        ("B) Paris, which A dog knows", "B", 1),
        ("**Answer: C**", "C", 1),
        ("(A) one (B) two. So (A)", "A", 1),
        ("I say D", "D", 1),
        ("a dog", "A", 0),
        ("no idea", "A", 0),
    ],
)
def test_choice(output: str, answer: str, right: float) -> None:
    assert content(output, answer, kind="choice") == right


CASES = [
    json.loads(line) for line in (Path(__file__).parents[1] / "cases/scoring.jsonl").read_text("utf-8").splitlines()
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["output"]))
def test_what_an_answer_says_counts_however_it_is_written(case: dict[str, Any]) -> None:
    style = [case["style"]] if "style" in case else []
    score = scorers(*style, content=(case["scorer"],)).score(question(case["answer"]), case["output"])
    assert (score.content, score.style) == (pytest.approx(case["content"]), 1)
    assert score.output == case["output"]


ROUTING = '{"team": "billing", "urgent": true, "steps": [1, 2.0]}'


@pytest.mark.parametrize(
    ("output", "fields", "whole"),
    [
        (ROUTING, 1, 1),
        ('{"urgent": true,\n "steps": [1.0, 2], "team": " Billing"}', 1, 1),
        ('{"team": "bug", "urgent": true, "steps": [1, 2]}', 2 / 3, 0),
        ('{"team": "billing", "urgent": 1, "steps": [2, 1]}', 1 / 3, 0),
        ('{"team": "billing"}', 1 / 3, 0),
        (f"```json\n{ROUTING}\n```", 1, 0),
        (f'{{"routing": {ROUTING}}}', 1, 0),
        ("billing", 0, 0),
        ('["billing"]', 0, 0),
    ],
)
def test_json_answers_are_compared_by_key_or_as_a_whole(output: str, fields: float, whole: float) -> None:
    assert content(output, ROUTING, kind="json_fields") == pytest.approx(fields)
    assert content(output, ROUTING, kind="exact") == whole


def test_named_fields_alone_count() -> None:
    assert content('{"team": "billing"}', ROUTING, kind="json_fields", keys=["team"]) == 1
    assert content('{"team": "billing"}', ROUTING, kind="json_fields", keys=["team", "urgent"]) == 0.5
    assert content('{"team": "billing"}', "billing", kind="json_fields") == 0


def test_f1_counts_words_as_squad_does() -> None:
    assert content("The river Seine!", "Seine river", kind="f1") == 1
    assert content("the Seine", "Seine river", kind="f1") == pytest.approx(2 / 3)
    assert content("Rhine", "Seine", kind="f1") == 0


def test_content_is_the_mean_over_its_scorers() -> None:
    both = scorers(content=({"kind": "exact"}, {"kind": "contains"}))
    assert both.score(Example(name="train:1", question="?", answer="5"), "It is 5").content == 0.5


# --- style ---------------------------------------------------------------------------------------

STARTS = {"kind": "starts_with", "text": "ANSWER: "}
JSON = {"kind": "json", "keys": ["answer"]}


@pytest.mark.parametrize(
    ("style", "good", "bad", "message"),
    [
        (STARTS, " ANSWER: x", "The capital of France", 'but it starts with "The capital of"'),
        (STARTS, "ANSWER: x", "", "it is empty"),
        ({"kind": "regex", "pattern": r"^\d+$"}, "12", "twelve", "twelve"),
        (JSON, '{"answer": 1, "unit": ""}', '{"reply": 1}', '"answer" is missing'),
        (JSON, '{"answer": 1}', '```json\n{"answer": 1}\n```', "fence"),
        (JSON, '{"answer": 1}', "Sure!", "not valid JSON"),
        (JSON, '{"answer": 1}', '{"answer": NaN}', "NaN"),
        (JSON, '{"answer": 1}', "[1]", "another kind"),
        ({"kind": "json", "schema": {"type": "integer"}, "show": "{answer}"}, "3", '"3"', "not of type 'integer'"),
        ({"kind": "words", "most": 2}, "one two", "one two three", "at most 2 words, but it has more"),
        ({"kind": "words", "least": 2}, "one two", "one", "at least 2 words, but it has 1"),
        ({"kind": "words", "least": 2, "most": 2}, "one two", "one", "exactly 2 words"),
        ({"kind": "forbid", "words": ["as an AI", "!"]}, "AI as an aid", "Well, As an  AI", '"as an AI"'),
        ({"kind": "forbid", "words": ["!"]}, "Hi", "Hi!", '"!"'),
        ({"kind": "bullets", "least": 2}, "- a\nb\n * c", "- a\n---\n**c**", "at least 2 lines"),
        ({"kind": "bullets", "most": 1}, "- a", "- a\n- b", "it has more"),
    ],
)
def test_a_style_holds_or_says_why_not(style: dict[str, Any], good: str, bad: str, message: str) -> None:
    task_scorers = scorers(style)
    example = Example(name="train:1", question="?", answer="x")
    assert (task_scorers.score(example, good).style, task_scorers.faults(good), task_scorers.instructions(good)) == (
        1.0,
        (),
        (),
    )
    score = task_scorers.score(example, bad)
    assert score.style == 0.0
    assert message in score.faults[0]
    assert score.faults == task_scorers.faults(bad)
    assert task_scorers.instructions(bad) == task_scorers.instructions() != ()


@pytest.mark.parametrize("style", [STARTS, JSON, {"kind": "bullets"}])
@given(answer=answers)
def test_what_is_shown_has_the_form(style: dict[str, Any], answer: str) -> None:
    task_scorers = scorers(style)
    assert task_scorers.faults(task_scorers.show(answer)) == ()


@given(answers)
def test_prefix_and_bullets_are_put_on_once(answer: str) -> None:
    for style in (STARTS, {"kind": "bullets"}):
        task_scorers = scorers(style)
        assert task_scorers.show(task_scorers.show(answer)) == task_scorers.show(answer)


@given(answers)
def test_an_answer_in_a_json_template_stays_json_and_unchanged(answer: str) -> None:
    task_scorers = scorers({"kind": "json", "keys": ["a", "unit"], "show": '{"a": "{answer}", "unit": ""}'})
    assert json.loads(task_scorers.show(answer)) == {"a": answer, "unit": ""}


@pytest.mark.parametrize(
    ("style", "shown"),
    [
        ({"kind": "json", "keys": ["team", "urgent"]}, ROUTING),
        ({"kind": "json", "keys": ["team", "urgent"], "show": "{answer}"}, ROUTING),
        ({"kind": "json", "schema": {"type": "object"}}, ROUTING),
        ({"kind": "json", "keys": ["routing"]}, f'{{"routing": {ROUTING}}}'),
        ({"kind": "json", "keys": ["a", "b"], "show": '{"a": {answer}, "b": ""}'}, f'{{"a": {ROUTING}, "b": ""}}'),
    ],
)
def test_an_answer_that_is_an_object_is_shown_as_one(style: dict[str, Any], shown: str) -> None:
    task_scorers = scorers(style, content=({"kind": "contains"},))
    assert task_scorers.show(ROUTING) == shown
    assert task_scorers.full_marks(shown, question(ROUTING))


def test_an_answer_without_the_keys_is_left_alone() -> None:
    assert scorers({"kind": "json", "keys": ["a", "b"]}).show("5") == "5"


def test_thoughts_count_for_nothing_and_stay_in_front() -> None:
    task_scorers, thought = (
        scorers(STARTS, {"kind": "words", "most": 2}),
        "<think>\nParis or Rome, or what?\n</think>\n\n",
    )
    score = task_scorers.score(question("Paris"), f"{thought}ANSWER: Rome")
    assert (score.content, score.style) == (0, 1)
    assert task_scorers.faults(f"{thought}Paris") == task_scorers.faults("Paris") != ()
    assert task_scorers.instructions(f"{thought}ANSWER: Rome") == ()
    assert task_scorers.show(f"{thought}Paris") == f"{thought}ANSWER: Paris"
    assert task_scorers.full_marks(f"{thought}ANSWER: Paris", question(f"{thought}Paris"))


def test_words_and_forbidden_words_leave_a_reference_alone() -> None:
    assert scorers({"kind": "words", "most": 1}, {"kind": "forbid", "words": ["x"]}).show("x y") == "x y"


def test_forms_are_put_on_in_the_order_of_the_task() -> None:
    assert scorers({"kind": "regex", "pattern": "x", "show": "[{answer}]"}, STARTS).show("5") == "ANSWER: [5]"


def test_say_replaces_the_instruction() -> None:
    assert scorers({**STARTS, "say": "Be brief."}).instructions() == ("Be brief.",)
    assert scorers(STARTS).instructions() == ('Start your answer with "ANSWER: ".',)


def test_style_is_the_mean_and_one_fault_is_no_pass() -> None:
    task_scorers = scorers(STARTS, {"kind": "words", "most": 9})
    example = Example(name="train:1", question="?", answer="Paris")
    assert task_scorers.score(example, "Paris").style == 0.5
    assert not task_scorers.full_marks("Paris", example)
    assert task_scorers.full_marks("ANSWER: Paris", example)
    assert not task_scorers.full_marks("ANSWER: Rome", example)


def test_without_styles_any_form_will_do() -> None:
    assert scorers().score(Example(name="train:1", question="?", answer="x"), "~").style == 1.0


def test_description_is_one_line_that_names_both_wants() -> None:
    text = scorers(STARTS).describe()
    assert "ANSWER: " in text
    assert "the answer's words" in text
    assert "\n" not in text


def test_digest_follows_the_settings() -> None:
    assert scorers(STARTS).digest == scorers(STARTS).digest
    assert scorers(STARTS).digest != scorers({**STARTS, "text": "A: "}).digest != scorers().digest


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ({"kind": "regex", "pattern": "("}, "not a regular expression"),
        ({"kind": "json", "schema": {"type": "strin"}, "show": "{answer}"}, "not a JSON schema"),
        ({"kind": "json", "schema": {"items": {"pattern": "a**"}}}, "not a JSON schema"),
        ({"kind": "json", "schema": {"items": {"pattern": "(?<n>a)"}}}, "not a JSON schema"),
        ({"kind": "json", "schema": {"$ref": "#/$defs/x"}, "show": "{answer}"}, "/$defs/x"),
        ({"kind": "json", "schema": {"items": {"$ref": "http://x.org/y"}}, "show": "{answer}"}, "http://x.org/y"),
        ({"kind": "words", "least": 5, "most": 2}, "no answer can satisfy both"),
        ({"kind": "words"}, "set one"),
    ],
)
def test_a_scorer_that_cannot_work_is_refused_by_place(style: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        scorers(STARTS, style)
    assert "'style.1'" in str(caught.value)
    assert message in str(caught.value)


def test_a_content_pattern_that_does_not_compile_is_refused() -> None:
    with pytest.raises(BadInput, match=r"'content\.0': 'extract' is not a regular expression"):
        scorers(content=({"kind": "exact", "extract": "["},))
    with pytest.raises(BadInput, match="letters"):
        scorers(content=({"kind": "choice", "letters": ""},))


def test_say_and_show_have_no_meaning_for_content() -> None:
    with pytest.raises(BadInput, match=r"'content\.0': 'say' and 'show' are for a judge of style"):
        scorers(content=({**JUDGE, "say": "Be polite."},))


# --- judges and reward models --------------------------------------------------------------------

JUDGE = {"kind": "judge", "rubric": "The answer\nis polite."}
REWARD = {"kind": "reward_model", "model": "kind-1"}
ROWS = [
    (Example(name=f"train:{n}", question="?", answer="Paris"), output) for n, output in enumerate(("Paris", "Rome"))
]


class Panel:
    """Gives raters who give so many points, and keeps what was asked of them."""

    def __init__(self, *points: float) -> None:
        self.points = points
        self.called: list[Rated] = []
        self.asked: list[list[tuple[str, str]]] = []

    def __call__(self, settings: Rated) -> Rater:
        self.called.append(settings)
        return self

    def rate(self, answered: Sequence[tuple[Example, str]]) -> list[Rating]:
        self.asked.append([(example.answer, output) for example, output in answered])
        return [Rating(point, f"worth {point}") for point, _ in zip(self.points, answered, strict=True)]


def judged(panel: Panel, content: Sequence[dict[str, Any]] = (), style: Sequence[dict[str, Any]] = ()) -> TaskScorers:
    return TaskScorers(
        [CONTENT.validate_python(settings) for settings in content or [{"kind": "contains"}]],
        [STYLE.validate_python(settings) for settings in style],
        panel,
    )


def test_a_judge_of_content_is_asked_once_for_all_rows_and_counts_beside_the_rules() -> None:
    panel = Panel(1.0, 0.5)
    right, wrong = judged(panel, [{"kind": "contains"}, JUDGE]).score_all(ROWS)
    assert (right.content, wrong.content) == (1.0, 0.25)
    assert (right.remarks, wrong.remarks) == ((), ("worth 0.5",))
    assert (right.praise, wrong.praise) == (("worth 1.0",), ())
    assert (right.style, right.faults, wrong.faults) == (1.0, (), ())
    assert panel.asked == [[("Paris", "Paris"), ("Paris", "Rome")]]


def test_a_judge_of_style_gives_shares_faults_and_sees_the_wanted_form() -> None:
    panel = Panel(1.0, 0.5)
    right, wrong = judged(panel, style=[STARTS, JUDGE]).score_all(ROWS)
    assert (right.style, wrong.style) == (0.5, 0.25)
    assert (len(right.faults), right.remarks, right.praise) == (1, (), ("worth 1.0",))
    assert (wrong.faults[1], wrong.remarks, wrong.praise) == ("worth 0.5", (), ())
    assert panel.asked == [[("ANSWER: Paris", "Paris"), ("ANSWER: Paris", "Rome")]]


def test_one_row_is_scored_as_many_are() -> None:
    assert judged(Panel(0.5), [JUDGE]).score(*ROWS[1]) == judged(Panel(1.0, 0.5), [JUDGE]).score_all(ROWS)[1]


def test_nobody_is_asked_but_for_a_score() -> None:
    panel = Panel()
    task_scorers = judged(panel, [{"kind": "exact"}, JUDGE, REWARD], [{"kind": "words", "most": 1}, JUDGE])
    example = ROWS[0][0]
    assert task_scorers.full_marks("Paris", example)
    assert not task_scorers.full_marks("Rome", example)
    assert not task_scorers.full_marks("Paris Paris", example)
    assert task_scorers.show("Paris") == "Paris"
    assert task_scorers.faults("Paris") == ()
    assert not judged(panel, [JUDGE]).may_stop(example, "Paris is what I say and ")
    assert not judged(panel, style=[JUDGE]).may_stop(example, "Paris is what I say and ")
    assert (
        "polite" in task_scorers.describe()
        and "reward model" in task_scorers.describe()
        and "\n" not in task_scorers.describe()
    )
    assert panel.called == []


def test_the_instruction_of_a_judge_is_its_rubric_or_what_it_says() -> None:
    assert judged(Panel(), style=[JUDGE]).instructions() == ("The answer\nis polite.",)
    task_scorers = judged(Panel(), style=[STARTS, {**JUDGE, "say": "Be polite."}])
    assert task_scorers.instructions("ANSWER: Paris") == ("Be polite.",)  # it may be what this answer lacks
    assert judged(Panel(), style=[{**JUDGE, "show": "Dear, {answer}"}]).show("5") == "Dear, 5"


def test_equal_settings_share_a_rater_for_good() -> None:
    panel = Panel(1.0, 1.0)
    task_scorers = judged(panel, [REWARD, JUDGE], [JUDGE])
    task_scorers.score_all(ROWS)
    task_scorers.score_all(ROWS)
    assert [settings.kind for settings in panel.called] == ["reward_model", "judge"]


def test_the_digest_follows_the_judge_and_who_it_is() -> None:
    digests = {
        scorers(content=(JUDGE,)).digest,
        scorers(content=({**JUDGE, "rubric": "Rude."},)).digest,
        scorers(content=({**JUDGE, "compare": True},)).digest,
        scorers(content=(REWARD,)).digest,
        scorers(content=({**REWARD, "model": "kind-2"},)).digest,
        TaskScorers([CONTENT.validate_python(JUDGE)], judge={"model": "judge-1"}).digest,
        TaskScorers([CONTENT.validate_python(JUDGE)], judge={"model": "judge-2"}).digest,
    }
    assert len(digests) == 7


def test_a_judge_does_not_see_thoughts() -> None:
    panel = Panel(1.0)
    judged(panel, [JUDGE]).score(ROWS[0][0], "<think>Rome?</think>Paris")
    assert panel.asked == [[("Paris", "Paris")]]


# --- regular expressions without end ---------------------------------------------------------------

SCHEMA = {"kind": "json", "schema": {"properties": {"a": {"pattern": "^(x|y)*$"}}}, "show": "{answer}"}


def test_a_regular_expression_that_takes_too_long_is_a_fault_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "xy" * 5000 + "z"
    task_scorers = scorers(
        {"kind": "regex", "pattern": "^(x|y)*$"}, content=({"kind": "exact", "extract": "(x|y)*z$"},)
    )
    inside = scorers(SCHEMA)
    assert task_scorers.score(question("z"), long).faults != ()
    monkeypatch.setattr("eval.scorers.patterns.LIMIT", 1e-9)
    score = task_scorers.score(question("z"), long)
    assert (score.content, score.style) == (0, 0)
    assert "The regular expression ^(x|y)*$ was given up" in score.faults[0]
    assert "The regular expression (x|y)*z$ was given up" in score.remarks[0]
    assert task_scorers.instructions(long) == task_scorers.instructions()
    assert not task_scorers.full_marks(long, question("z"))
    assert "^(x|y)*$ was given up" in inside.faults(json.dumps({"a": long}))[0]


def test_whoever_only_reads_a_task_cannot_score_by_a_judge() -> None:
    with pytest.raises(BadInput, match="`kind: judge` cannot be asked here"):
        scorers(content=(JUDGE,)).score(*ROWS[0])


PATTERNED: dict[str, Any] = {"patternProperties": {"^x": {}}}


@pytest.mark.parametrize("schema", [PATTERNED, {"properties": {"a": PATTERNED}}, {"anyOf": [{}, PATTERNED]}])
def test_a_schema_that_could_search_without_end_is_refused(schema: dict[str, Any]) -> None:
    """The library searches the names of keys by a pattern that nothing limits in time."""
    with pytest.raises(BadInput, match="patternProperties, which has no time limit"):
        scorers({"kind": "json", "schema": schema, "show": "{answer}"})


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"properties": {"a": {"$ref": "#/properties/a"}}}])
def test_a_schema_that_refers_to_itself_without_end_is_a_fault(schema: dict[str, Any]) -> None:
    task_scorers = scorers({"kind": "json", "schema": schema, "show": "{answer}"})
    assert "the schema refers to itself without end" in task_scorers.faults('{"a": 1}')[0]
