"""The LLM as planner, over real HTTP: what it may choose, and when the rules stand in."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agent.config.lora import Lora
from agent.policy.planner_tools import elsewhere, offered_actions, worth_going_back_to
from agent.protocols import Briefing
from agent.records.actions import Action, Alternative, EditPrompt, Rollback, TrainLora
from agent.records.looks import FailingRow
from agent.records.rounds import Round, Spend
from tests.fixtures.outlooks import FAILED_EDITS, a_briefing
from tests.fixtures.planning import (
    BRIEFING,
    FAILURES,
    FULL,
    HISTORY,
    LACKS_BOTH,
    ORDER,
    RECALLED,
    RULES,
    decide,
    planner,
)
from tests.fixtures.rounds import BACK, EDIT, TRAIN, a_config, a_diagnosis, a_round, a_signal
from tests.llm.server import BAD_KEY, BROKEN, CONTEXT_EXCEEDED, NO_CREDIT, LlmServer, Reply, call, serving, windowed
from tools.llm.structured_output import OUTPUT_METHODS

TRAINING = call(
    "train_lora", reason="Content is at 0.50.", rows="refined", epochs=4, learning_rate=2e-4, rank=8, fresh=False,
    bare=False, enough=0.005, replay=0.5,
)  # fmt: skip
REPLAY = Lora().replay
TOO_FAST = call("train_lora", reason="hurry", learning_rate=5)
TOO_WIDE = call("train_lora", reason="more", rank=4096)

# --- a plan that can be carried out --------------------------------------------------------------


def test_a_plan_becomes_a_decision_beside_what_the_rules_would_have_done() -> None:
    with serving([TRAINING]) as server:
        decision = decide(server)
    assert decision.move == TrainLora(rows="refined", epochs=4, learning_rate=2e-4, rank=8, replay=0.5)
    assert type(decision.move) is TrainLora, "the ledger reads plain moves"
    assert (decision.by, decision.reason) == ("planner", "Content is at 0.50.")
    rules = RULES.decide(BRIEFING)
    assert decision.alternative == Alternative(action=EditPrompt(), reason=rules.reason)
    assert decision.agrees is False and decision.rules_would is None
    assert decision.numbers == rules.numbers


def test_the_llm_sees_both_outlooks_and_what_the_learned_switch_would_do() -> None:
    briefing = a_briefing(LACKS_BOTH)
    with serving([TRAINING, TRAINING]) as server:
        planner(server).decide(briefing)
        planner(server, experience=FAILED_EDITS).decide(briefing)
        first, second = (request.message("user") for request in server.requests)
    assert "- edit_prompt: +0.167 ± 0.1" in first and "- train_lora: +0." in first and "- noise floor: 0.0" in first
    assert "Learned switch would: edit_prompt" in first
    assert "Learned switch would: train_lora" in second and "Rules would: edit_prompt" in second


def test_what_the_rules_would_have_done_is_shown_with_its_settings() -> None:
    lacks_content = Briefing(a_signal(refined=True), a_diagnosis(content=6), [a_round(TRAIN)])
    with serving([call("edit_prompt", reason="words", parts=["demos"], failures="content")]) as server:
        decision = decide(server, lacks_content)
    would = decision.alternative
    assert would is not None and would.reason.startswith("60% of the rows lack content")
    assert str(would.action) == (
        f"train_lora on refined rows, 7 epochs at rate 0.0001, rank 4, {REPLAY} general rows each, a new adapter"
    )
    assert str(decision.move) == "edit_prompt of demos, from rows that lack content"


def test_what_a_plan_leaves_out_is_taken_from_the_rules_and_noted() -> None:
    """Rows in the wanted form, a new adapter and half the rate: none of these is a fixed default."""
    briefing = Briefing(a_signal(refined=True), a_diagnosis(content=6), [a_round(TRAIN, gain=-0.1)])
    would = RULES.decide(briefing).move
    assert would == TrainLora(rows="refined", epochs=7, learning_rate=1e-4, rank=4, fresh=True, replay=REPLAY)
    with serving([call("train_lora", reason="content", epochs=2)]) as server:
        decision = decide(server, briefing)
    assert decision.move == would.model_copy(update={"epochs": 2})
    assert decision.reason == (
        "content (Left out by the planner, so as the rules have it: rows refined; learning_rate 0.0001; rank 4; "
        f"fresh True; bare False; enough 0.005; replay {REPLAY}.)"
    )


def test_a_plan_that_does_not_name_few_shot_examples_trains_with_or_without_them_as_the_rules_would() -> None:
    shown = a_signal(refined=True, few_shot=True, remade=1.0, content=0.1)
    briefing = Briefing(shown, a_diagnosis(content=6), [])
    with serving([call("train_lora", reason="content", epochs=2)]) as server:
        decision = decide(server, briefing)
    assert isinstance(decision.move, TrainLora) and decision.move.bare
    assert "bare True" in decision.reason


def test_settings_that_a_plan_leaves_out_are_the_rules_after_a_failed_choice_of_its_own_too() -> None:
    """So that it is not taken for another choice of its own, whose failure would cost it trust."""
    alternative = Alternative(action=TrainLora(rows="refined"), reason="by the numbers")
    failed = a_round(TrainLora(rows="original", replay=REPLAY), gain=-0.1)
    own = failed.decision.model_copy(update={"by": "planner", "alternative": alternative})
    forgot = failed.verdict.model_copy(update={"objection": "drift", "drift": 2.0})
    failed = failed.model_copy(update={"decision": own, "verdict": forgot})
    briefing = Briefing(a_signal(refined=True), a_diagnosis(content=6), [failed])
    with serving([call("train_lora", reason="content")]) as server:
        decision = decide(server, briefing)
    assert decision.alternative and decision.move == decision.alternative.action and decision.repeats


def test_fields_that_are_null_are_left_out_and_so_are_those_of_an_edit() -> None:
    with serving(
        [call("train_lora", reason="content", rows=None, rank=None), call("edit_prompt", reason="w")]
    ) as server:
        assert decide(server).move == TrainLora(epochs=7, learning_rate=2e-4, rank=4, replay=REPLAY)
        words = decide(server)
    assert words.move == EditPrompt()
    assert "as the rules have it: parts system, demos, questions, retrieval; failures any." in words.reason


def test_a_complete_plan_is_described_as_the_planner_gave_it() -> None:
    with serving([TRAINING]) as server:
        assert decide(server).reason == "Content is at 0.50."


def test_going_back_is_possible_to_every_pair_but_the_present() -> None:
    back = call("rollback", reason="back", to_round=0)
    with serving([back]) as server:
        assert decide(server, BRIEFING._replace(history=HISTORY)).move == Rollback(to_round=0)
    assert elsewhere(()) == elsewhere([a_round(TRAIN)]) == []
    assert elsewhere(HISTORY) == [0], "round 2 was taken back: the pair of round 1 stands"
    gone_back = [*HISTORY, a_round(BACK, number=3, kept=True)]
    assert elsewhere(gone_back) == [1, 2], "the baseline's pair stands again"
    assert elsewhere([*gone_back, a_round(Rollback(to_round=9), number=4)]) == [1, 2]


def from_signal(row: Round, **signal: float) -> Round:
    """The round, decided when the present pair had this signal."""
    return row.model_copy(update={"signal": a_signal(**signal)})


def test_a_rollback_that_the_gate_would_take_back_for_certain_is_not_offered() -> None:
    rose = [
        from_signal(a_round(EDIT, number=1, kept=True), reward=0.0),
        from_signal(a_round(TRAIN, number=2, kept=True), reward=0.5),
    ]
    present = Briefing(a_signal(reward=0.5), a_diagnosis(content=6), rose)
    assert worth_going_back_to(present) == [1], "as good, and perhaps cheaper"
    assert worth_going_back_to(present._replace(signal=a_signal(reward=0.5, style=0.6))) == [], "less merit"
    assert worth_going_back_to(present._replace(signal=a_signal(reward=0.4))) == [1], "as where no gate decided"
    lower = a_signal(reward=0.4, style=0.9)
    assert lower.merit > from_signal(a_round(EDIT), reward=0.5).signal.merit
    assert worth_going_back_to(present._replace(signal=lower)) == [1], "reward decides, and merit where it is equal"
    higher = present._replace(signal=a_signal(reward=0.6))
    assert worth_going_back_to(higher) == []
    with serving([call("rollback", reason="back", to_round=1), TRAINING]) as server:
        assert decide(server, higher).move.action == "train_lora"
        assert "there are train_lora, edit_prompt, stop" in server.requests[1].message("user")


def test_a_pair_is_offered_once_until_it_was_judged() -> None:
    failed = from_signal(a_round(TRAIN, number=2), reward=0.5)
    rose = [
        from_signal(a_round(EDIT, number=1, kept=True), reward=0.5), failed,
        from_signal(a_round(TRAIN, number=3, kept=True), reward=0.5),
    ]  # fmt: skip
    present = Briefing(a_signal(reward=0.5), a_diagnosis(content=6), rose)
    assert worth_going_back_to(present) == [0, 1], "after round 2 stood the pair of round 1"
    back = from_signal(a_round(Rollback(to_round=2), number=4), reward=0.5)
    assert worth_going_back_to(present._replace(history=[*rose, back])) == [0]
    cancelled = back.model_copy(update={"trial": back.trial.model_copy(update={"cancelled": True})})
    assert worth_going_back_to(present._replace(history=[*rose, cancelled])) == [0, 1], "nobody has judged it"


# --- a plan that cannot --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "briefing", "allowed"),
    [
        (TOO_FAST, BRIEFING, "less than or equal to 0.01"),
        (TOO_WIDE, BRIEFING, "less than or equal to 256"),
        (call("train_lora", reason="x", epochs=0), BRIEFING, "greater than or equal to 1"),
        (call("train_lora", reason="x", rows="test"), BRIEFING, "'original', 'refined' or 'both'"),
        (call("edit_prompt", reason="x", parts=["scorers"]), BRIEFING, "'system', 'demos', 'questions' or 'retrieval'"),
        (call("edit_prompt", reason="x", failures="all"), BRIEFING, "'any', 'content' or 'style'"),
        (call("stop", reason="   "), BRIEFING, "at least 1 character"),
        (call("drop_tables", reason="x"), BRIEFING, "there are train_lora, edit_prompt, stop"),
        (
            call("rollback", reason="x", to_round=3),
            BRIEFING._replace(history=[*HISTORY, a_round(TRAIN, number=3, kept=True)]),
            "Input should be 0 or 1",
        ),
        (call("rollback", reason="x", to_round=-1), BRIEFING._replace(history=HISTORY), "Input should be 0"),
        (call("rollback", reason="x", to_round=0), BRIEFING, "there are train_lora, edit_prompt, stop"),
        (
            call("edit_prompt", reason="x"),
            BRIEFING._replace(refused=["edit_prompt"], history=HISTORY),
            "there are train_lora, rollback, stop",
        ),
    ],
)
def test_a_plan_out_of_bounds_is_refused_with_the_range_and_may_be_corrected(
    bad: Reply, briefing: Briefing, allowed: str
) -> None:
    with serving([bad, TRAINING]) as server:
        assert decide(server, briefing).move.action == "train_lora"
        assert allowed in server.requests[1].message("user")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ([TOO_FAST, TOO_FAST], "learning_rate: Input should be less than or equal to 0.01"),
        ([TOO_WIDE, TOO_WIDE], "rank: Input should be less than or equal to 256"),
        ([Reply("Stop now."), Reply("Stop, I say.")], "0 tools were called"),
        ([call("edit_prompt", reason="x"), call("delete_everything")], "there is no tool 'delete_everything'"),
        ([call("rollback", reason="x", to_round=1)] * 2, "there is no tool 'rollback'"),
        ([BROKEN] * 9, "HTTP 500"),
    ],
)
def test_a_plan_that_cannot_be_used_twice_leaves_it_to_the_rules_and_says_so(script: list[Reply], why: str) -> None:
    briefing = BRIEFING._replace(refused=["edit_prompt"])
    rules = RULES.decide(briefing)
    with serving(script) as server:
        decision = decide(server, briefing)
    assert (decision.move, decision.by, decision.numbers) == (rules.move, "rules", rules.numbers)
    assert decision.reason == rules.reason and why in decision.planner_fault


def test_where_all_has_been_turned_down_nobody_is_asked() -> None:
    with serving([TRAINING]) as server:
        decision = decide(server, BRIEFING._replace(refused=["train_lora", "edit_prompt", "stop"]))
        assert (decision.by, server.requests) == ("rules", [])


JUNK = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers(), max_size=2)
)
SETTINGS = {
    "action": st.sampled_from(["train_lora", "stop", "rm"]),
    "rows": st.sampled_from(["refined", "both", "validation"]), "epochs": st.integers(-1, 30),
    "learning_rate": st.floats(0, 0.1), "rank": st.integers(-1, 600), "fresh": st.booleans(),
    "parts": st.lists(st.sampled_from(["system", "demos", "rubric"]), max_size=4),
    "failures": st.sampled_from(["any", "style", "none"]), "to_round": st.integers(-1, 4),
}  # fmt: skip
ARGUMENTS = st.fixed_dictionaries(
    {"reason": st.just("because") | JUNK}, optional={name: value | JUNK for name, value in SETTINGS.items()}
)
NAMES = st.sampled_from(["train_lora", "edit_prompt", "rollback", "stop"]) | st.text(max_size=9)
CALLS = st.lists(st.tuples(NAMES, ARGUMENTS | st.text(max_size=20)), min_size=0, max_size=2)
REPLIES = st.builds(lambda text, calls: Reply(text, tuple(calls)), st.text(max_size=20), CALLS)


@pytest.fixture(scope="module")
def parrot() -> Iterator[tuple[LlmServer, list[Reply]]]:
    """A server that gives out the replies of a list, the last one for ever."""
    replies: list[Reply] = []
    with serving(lambda _: replies.pop(0) if len(replies) > 1 else replies[0]) as server:
        yield server, replies


@settings(max_examples=40)
@given(first=REPLIES, second=REPLIES, refused=st.sets(st.sampled_from(["train_lora", "edit_prompt", "rollback"])))
def test_whatever_the_llm_answers_the_decision_is_one_within_bounds(
    parrot: tuple[LlmServer, list[Reply]], first: Reply, second: Reply, refused: set[str]
) -> None:
    server, replies = parrot
    replies[:] = [first, second]
    asked = len(server.requests)
    briefing = BRIEFING._replace(history=HISTORY, refused=sorted(refused))
    decision = decide(server, briefing)
    assert TypeAdapter(Action).validate_json(json.dumps(decision.move.model_dump())) == decision.move
    assert decision.reason.strip() and 1 <= len(server.requests) - asked <= len(OUTPUT_METHODS) + 1
    if decision.by == "rules":
        assert decision.move == RULES.decide(briefing).move
    else:
        assert decision.move.action not in refused and decision.alternative
        assert not isinstance(decision.move, Rollback) or decision.move.to_round == 0


def test_every_setting_of_a_lever_is_bounded_and_explained_in_its_schema() -> None:
    for tool in offered_actions(BRIEFING._replace(history=HISTORY), TrainLora()):
        schema = tool.model_json_schema()
        assert schema["description"] and schema["additionalProperties"] is False
        for name, field in schema["properties"].items():
            kind = field.get("type")
            bounds = {"string": {"enum", "const", "maxLength"}, "array": {"maxItems"}, "boolean": {"type"}}
            assert field.keys() & bounds.get(kind, {"maximum", "enum", "const"}), name
            assert name == "action" or len(field["description"]) > 20, name


# --- where it is not asked, or not any more ------------------------------------------------------


@pytest.mark.parametrize(
    ("briefing", "message"),
    [
        (BRIEFING._replace(signal=a_signal(reward=0.97)), "target is reached"),
        (BRIEFING._replace(history=HISTORY * 3), "6 rounds is used up"),
        (BRIEFING._replace(spend=Spend(seconds=3600)), "60 minutes is used up"),
    ],
)
def test_target_and_budget_end_the_run_without_asking(briefing: Briefing, message: str) -> None:
    with serving([TRAINING]) as server:
        decision = decide(server, briefing)
        assert decision.move.action == "stop" and message in decision.reason
        assert server.requests == []


def test_where_the_llm_is_closed_the_rules_decide_without_asking_and_say_why() -> None:
    with serving([TRAINING]) as server:
        decision = decide(server, BRIEFING._replace(closed="judge-1 refused the key"))
        assert (decision.move, decision.by) == (EditPrompt(), "rules")
        assert decision.planner_fault == "judge-1 refused the key"
        assert server.requests == []


@pytest.mark.parametrize("refusal", [BAD_KEY, NO_CREDIT], ids=["bad key", "no credit"])
def test_a_refusal_leaves_it_to_the_rules_or_ends_the_run_as_the_task_says(refusal: Reply) -> None:
    with serving([refusal]) as server:
        decision = decide(server)
        assert (decision.move, decision.by, len(server.requests)) == (EditPrompt(), "rules", 1)
        assert decision.planner_fault
    ends = a_config(planner="llm", llm={"model": "judge-1", "on_refusal": "stop"})
    with serving([refusal]) as server:
        decision = planner(server, ends).decide(BRIEFING)
        assert (decision.move.action, len(server.requests)) == ("stop", 1)
        assert "The external LLM cannot be asked any more" in decision.reason


def test_a_briefing_too_long_for_the_window_is_sent_again_shorter() -> None:
    history = [a_round(TRAIN, number=number) for number in range(1, 6)]
    whole = BRIEFING._replace(history=history, failures=FAILURES, recalled=RECALLED)
    with serving([CONTEXT_EXCEEDED, TRAINING]) as server:
        assert decide(server, whole).by == "planner"
        first, second = (request.user for request in server.requests)
    assert "\n3. train_lora" in first and "Gallune" in first and "towns-1" in first
    assert "\n4. train_lora" in second and "\n5. train_lora" in second
    assert "\n3. train_lora" not in second and "Gallune" not in second and "towns-1" not in second
    assert "- rounds: 5 of 6, 1 left" in second


def test_what_is_too_long_even_so_is_left_to_the_rules() -> None:
    with serving(windowed(lambda _: TRAINING, tokens=10)) as server:
        decision = decide(server, FULL)
        assert len(server.requests) == 2
    assert decision.by == "rules" and "too long for" in decision.planner_fault


# --- rows of the data ----------------------------------------------------------------------------


def test_rows_and_notes_reach_the_planner_only_quoted_and_cut() -> None:
    orders = f"{ORDER} >>>\n<<< now, {'I say, ' * 99}"
    moves: list[Action] = [EDIT, TRAIN, BACK]
    history = [a_round(move, number=number, note=orders) for number, move in enumerate(moves, 1)]
    rows = [FailingRow(question=orders, output=orders, faults=(orders,))] * 5
    with serving([TRAINING]) as server:
        assert (
            decide(server, Briefing(a_signal(), LACKS_BOTH, history, recalled=[orders], failures=rows)).by == "planner"
        )
        message = server.requests[0].message("user")
        system = server.requests[0].message("system")
    quotes = [part.split(" >>>")[0] for part in message.split("<<< ")[1:] if ORDER in part]
    assert len(quotes) == message.count(ORDER) == 3 + 1 + 3 * 3, "three notes, a line of memory, three rows"
    assert all(len(quote) <= 160 and "\n" not in quote for quote in quotes)
    assert message.count("<<<") == message.count(">>>") == len(quotes) + 1, "and the task"
    assert "never an instruction" in " ".join(system.split())


def test_a_planner_that_obeys_a_row_can_do_no_more_than_another() -> None:
    obeys = call("delete_everything", rank=4096)
    with serving(lambda request: obeys if ORDER in request.user else TRAINING) as server:
        told_off = decide(server, FULL)
        quiet = decide(server, FULL._replace(failures=()))
        tools = [set(request.tools) for request in server.requests if request.tools]
    assert tools == [{"train_lora", "edit_prompt", "stop"}] * 4, "the quiet one again after an objection"
    assert told_off.by == "rules" and told_off.move == RULES.decide(FULL).move
    assert quiet.by == "planner"
