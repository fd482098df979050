"""Trust in the planner: what its own choices bring beside the rules' promise, and what comes of it."""

from collections.abc import Sequence

import pytest

from agent.policy.experience import Experience, experience
from agent.policy.trust import LEAST, differs, in_words, objection, own_choices, standing
from agent.protocols import Briefing
from agent.records.actions import Action, Alternative, Decision, EditPrompt, Standing, Stop, TrainLora
from agent.records.rounds import Round, Spend
from agent.records.signal import LeverSignal
from tests.fixtures.outlooks import a_briefing, seen
from tests.fixtures.planning import CONFIG, RULES, planner
from tests.fixtures.rounds import EDIT, a_config, a_diagnosis, a_round, a_signal
from tests.llm.server import Reply, call, serving

LACKS_BOTH = a_diagnosis(both=9)
REMADE = TrainLora(rows="refined", epochs=7, learning_rate=2e-4, rank=4, replay=CONFIG.lora.replay)
AS_GIVEN = REMADE.model_copy(update={"rows": "original"})
FIRST = a_briefing(LACKS_BOTH, content=0.1, style=0.0, reward=0.0, remade=1.0)
"""Rows lack both, and can be remade: the rules train on refined rows, which promise three times what others do."""
WORDS = call("edit_prompt", reason="Words are cheap.", parts=["system"], failures="any")
ENDS = call("stop", reason="It is hopeless.")


def plan(move: TrainLora) -> Reply:
    return call("train_lora", **move.model_dump(exclude={"action"}), reason="Facts are lacking.")


def planned(move: Action, rules: Action, gain: float, number: int = 1, promise: float = 0.4) -> Round:
    """A round that the planner decided, with what it brought and what the rules' action promised."""
    row = a_round(move, number=number, kept=gain > 0, gain=gain, spend=Spend(train_tokens=1000))
    outlook = {"gain": promise, "spread": 0.6 * promise, "cost": 5000}
    lever = LeverSignal.model_validate({"outlook": outlook})
    return row.model_copy(
        update={
            "signal": row.signal.model_copy(update={"lora": lever, "edit": lever}),
            "decision": Decision(
                move=move, reason="so", by="planner", alternative=Alternative(action=rules, reason="by the numbers"),
                standing=Standing(llm="judge-1", trust=0.5),
            ),
        }
    )  # fmt: skip


def wasted(count: int, promise: float = 0.4) -> list[Round]:
    return [planned(EDIT, REMADE, gain=0, number=number, promise=promise) for number in range(1, count + 1)]


def lines(rounds: Sequence[Round], run: str = "towns-1") -> list[Experience]:
    found = [experience(row, run, "towns", "smollm2-135m") for row in rounds]
    return [line for line in found if line]


# --- the estimate --------------------------------------------------------------------------------


def test_trust_is_even_before_any_own_choice_and_falls_with_each_that_brings_less_than_was_promised() -> None:
    trust = [standing("judge-1", wasted(count)).trust for count in range(4)]
    assert trust == pytest.approx([0.5, 0.245, 0.115, 0.05], abs=0.005)
    assert trust[2] < LEAST < trust[1]


def test_small_stakes_move_it_little() -> None:
    assert standing("judge-1", wasted(3, promise=0.05)).trust > 0.35


def test_trust_grows_where_own_choices_bring_more_and_is_earned_back() -> None:
    good = planned(EDIT, REMADE, gain=0.9)
    assert standing("judge-1", [good]).trust > 0.75
    assert standing("judge-1", [*wasted(1), good]).trust > 0.5


def test_rounds_in_which_it_chose_as_the_rules_say_nothing_about_it() -> None:
    agreed = [planned(REMADE, REMADE, gain=0), planned(REMADE.model_copy(update={"rank": 32}), REMADE, gain=0)]
    users = planned(EDIT, REMADE, gain=0)
    users = users.model_copy(update={"decision": users.decision.model_copy(update={"by": "user"})})
    assert own_choices([*agreed, users, a_round(EDIT)]) == []
    assert standing("judge-1", agreed) == Standing(llm="judge-1", trust=0.5)


@pytest.mark.parametrize(
    ("changed", "kept", "few_shot", "own"),
    [
        ({"rows": "original"}, 0, False, True),
        ({"epochs": 2}, 0, False, True),
        ({"replay": 0.0}, 0, False, True),
        ({"learning_rate": 1e-3, "rank": 64, "enough": 0.1}, 1, False, False),
        ({"fresh": True}, 1, False, True),
        ({"fresh": True}, 0, False, False),
        ({"bare": True}, 0, True, True),
        ({"bare": True}, 0, False, False),
    ],
)
def test_what_makes_a_training_the_planners_own(
    changed: dict[str, object], kept: int, few_shot: bool, own: bool
) -> None:
    """A new adapter is no choice before there is another one, nor is it one to give up examples that are not there."""
    signal = a_signal(lora=LeverSignal(kept=kept), few_shot=few_shot)
    assert differs(REMADE.model_copy(update=changed), REMADE, signal) is own
    assert differs(EDIT, REMADE, signal) and not differs(EDIT, EditPrompt(parts=("demos",)), signal)


# --- what it rests on in other runs --------------------------------------------------------------


def test_own_choices_in_other_runs_count_together_as_one() -> None:
    """So a poor record leaves a short chance, and a run never starts overruled."""
    few, many = (standing("judge-1", [], lines(wasted(count))) for count in (1, 200))
    assert few.trust == pytest.approx(many.trust) and many.elsewhere == 200
    assert LEAST < many.trust < 0.5
    assert standing("judge-1", wasted(1), lines(wasted(200))).trust < LEAST


def test_only_the_same_llm_is_known_by_them() -> None:
    assert standing("other-2", [], lines(wasted(9))).trust == 0.5
    by_rules = a_round(EDIT)
    assert standing("judge-1", [], lines([by_rules])).elsewhere == 0


# --- a plan that the numbers speak against ---------------------------------------------------------


@pytest.mark.parametrize(("move", "objected"), [(AS_GIVEN, True), (Stop(), True), (EDIT, True), (REMADE, False)])
def test_a_plan_is_objected_to_where_the_rules_action_promises_far_more(move: Action, objected: bool) -> None:
    against = objection(move, REMADE, "so", FIRST.signal, LACKS_BOTH, CONFIG)
    assert (against is not None) is objected
    assert against is None or against.rules_gain > 2 * against.gain


def test_words_that_bring_more_for_their_price_are_not_objected_to() -> None:
    briefing = a_briefing(a_diagnosis(both=5, style=4), content=0.1, style=0.0, reward=0.0, remade=1.0)
    assert objection(EDIT, REMADE, "so", briefing.signal, briefing.diagnosis, CONFIG) is None


def test_a_planner_that_thinks_again_after_an_objection_decides() -> None:
    with serving([plan(AS_GIVEN), plan(REMADE)]) as server:
        decision = planner(server).decide(FIRST)
        first, second = (request.message("user") for request in server.requests)
    assert (decision.by, decision.move) == ("planner", REMADE)
    assert decision.objection and decision.objection.planned == AS_GIVEN
    assert "You chose train_lora on original rows" not in first
    assert second.startswith(first) and "You chose train_lora on original rows" in second
    assert f"{decision.objection.gain:+.2f} merit" in second and "You may keep yours" in second


def test_a_planner_of_even_record_may_keep_its_plan_but_not_a_stop() -> None:
    with serving([plan(AS_GIVEN)] * 2 + [ENDS] * 2) as server:
        kept, ended = planner(server).decide(FIRST), planner(server).decide(FIRST)
        assert "You may keep yours" not in server.requests[-1].message("user")
    assert (kept.by, kept.move) == ("planner", AS_GIVEN)
    assert (ended.by, ended.move) == ("rules", REMADE)
    assert "its plan, stop, promised +0.00 merit where the rules' action promises +0.4" in ended.planner_fault


def test_after_a_choice_that_brought_too_little_it_may_not_insist() -> None:
    briefing = FIRST._replace(history=wasted(1))
    with serving([plan(AS_GIVEN)] * 2) as server:
        decision = planner(server).decide(briefing)
    assert (decision.by, decision.move.action) == ("rules", "train_lora") and decision.move != AS_GIVEN


def test_nothing_is_objected_to_where_a_plan_is_as_the_rules_would() -> None:
    with serving([plan(REMADE)]) as server:
        assert planner(server).decide(FIRST).objection is None
        assert len(server.requests) == 1


def test_its_own_failed_choices_do_not_keep_the_rules_from_a_lever() -> None:
    """Two trainings that could not work would else count as a lever that is saturated."""
    sham = AS_GIVEN.model_copy(update={"epochs": 1, "learning_rate": 1e-6})
    # After the first, the lever promises less: the yield has fallen by what it brought.
    history = [planned(sham, REMADE, gain=0, number=1), planned(sham, REMADE, gain=0, number=2, promise=0.18)]
    saturated = LeverSignal(rounds=2, fruitless=2, saturated=True, outlook=FIRST.signal.lora.outlook)
    signal = FIRST.signal.model_copy(update={"lora": saturated})
    briefing = FIRST._replace(signal=signal, history=history)
    assert RULES.decide(briefing).move == EditPrompt()
    with serving([ENDS]) as server:
        assert planner(server).decide(briefing).move == REMADE
        assert server.requests == []
    assert standing("judge-1", history).trust == pytest.approx(standing("judge-1", wasted(2)).trust, abs=0.02)


# --- told, and overruled --------------------------------------------------------------------------


def test_it_is_told_what_its_choices_brought() -> None:
    with serving([plan(REMADE)] * 2) as server:
        planner(server).decide(FIRST._replace(history=wasted(1)))
        planner(server).decide(FIRST._replace(history=[planned(EDIT, REMADE, gain=0.8)]))
        told, praised = (request.message("user") for request in server.requests)
    assert "its 1 own choice in this run brought +0.00 merit for 3k forward tokens" in told
    assert "the rules' were expected to bring +0.40 for 5k" in told
    assert "own choice" not in praised


def test_it_is_overruled_unasked_with_the_numbers() -> None:
    briefing = FIRST._replace(history=wasted(2))
    with serving([plan(AS_GIVEN)]) as server:
        mind = planner(server)
        assert not mind.asks(briefing) and mind.asks(FIRST)
        decision = mind.decide(briefing)
        assert server.requests == []
    assert (decision.by, decision.move) == ("rules", RULES.decide(briefing).move)
    assert "it is overruled, since its 2 own choices in this run brought +0.00 merit" in decision.planner_fault
    assert decision.standing and decision.standing.trust < LEAST


def test_trust_that_is_always_given_is_never_lost() -> None:
    config = a_config(planner="llm", llm={"model": "judge-1", "trust": "always"}, lora={"epochs": 7, "rank": 4})
    with serving([ENDS]) as server:
        decision = planner(server, config).decide(FIRST._replace(history=wasted(3)))
        assert len(server.requests) == 1 and "own choices" not in server.requests[0].message("user")
    assert (decision.by, decision.move, decision.objection) == ("planner", Stop(), None)


def test_a_standing_is_said_with_its_numbers() -> None:
    now = standing("judge-1", wasted(1), lines(wasted(1)))
    assert in_words(now) == (
        "its 1 own choice in this run brought +0.00 merit for 3k forward tokens, where the rules' were expected to "
        "bring +0.40 for 5k; 1 own choice in other runs brought -0.40 a round beside that promise (trust 0.11)"
    )


def test_the_llm_is_asked_again_where_there_is_no_outlook_to_speak_against_it() -> None:
    with serving([WORDS]) as server:
        decision = planner(server).decide(Briefing(a_signal(), LACKS_BOTH))
    assert (decision.by, decision.objection) == ("planner", None)


def test_the_promise_of_refined_rows_is_the_outlooks() -> None:
    outlook = seen(FIRST.signal, LACKS_BOTH).lora.outlook
    against = objection(Stop(), REMADE, "so", FIRST.signal, LACKS_BOTH, CONFIG)
    assert outlook and against and against.rules_gain == outlook.gain
