"""The question before an action and its answers: LangChain's human-in-the-loop schema, as chat front ends know it."""

import importlib.util
import json
from typing import Any

import pytest

from agent.records.actions import Decision, EditPrompt, Rollback, Stop, TrainLora
from agent.signal.cost_model import FASTER
from graphs.approval import APPROVE, Approve, Cost, Forecast, Question, Reject, as_answer, instead, question, read
from graphs.control import wire
from graphs.nodes.approve import pace_of
from tests.fixtures.story import a_baseline, the_story
from ui import wording
from ui.mcp.calls import call_of, record_of
from ui.talk.plans import expected

DECISION = Decision(move=TrainLora(epochs=2), reason="The weight gap is the larger one.", numbers={"weight gap": 2.5})
COST = Cost(epochs=2, training_rows=40, validation_answers=12)


def test_a_question_is_an_action_request_with_its_review_configuration() -> None:
    asked = question(3, DECISION, COST)
    assert json.loads(json.dumps(asked)) == asked, "plain JSON values"
    [request], [config] = asked["action_requests"], asked["review_configs"]
    assert request["name"] == config["action_name"] == "train_lora"
    assert request["args"] == DECISION.move.model_dump(mode="json", exclude={"action"})
    for text in ("Round 3", DECISION.reason, "epochs 2", "validation answers 12"):
        assert text in request["description"]
    assert config["allowed_decisions"] == ["approve", "edit", "reject"]
    assert Question.model_validate(asked).decision == DECISION


def test_a_question_fits_langchains_own_types() -> None:
    if not importlib.util.find_spec("langchain"):
        pytest.skip("langchain is not installed: its types cannot be compared")
    from langchain.agents.middleware.human_in_the_loop import HITLRequest, HITLResponse
    from pydantic import TypeAdapter

    asked = question(1, DECISION, COST)
    known = {key: asked[key] for key in ("action_requests", "review_configs")}
    assert TypeAdapter(HITLRequest).validate_python(known, strict=True) == known
    for answer in (APPROVE, {"decisions": [{"type": "reject"}]}, instead("edit_prompt", parts=["system"])):
        assert TypeAdapter(HITLResponse).validate_python(answer, strict=True) == answer


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        (APPROVE, Approve()),
        ({"decisions": [{"type": "reject"}]}, Reject()),
        ({"decisions": [{"type": "reject", "message": "Too dear."}]}, Reject(message="Too dear.")),
        (instead("train_lora", epochs=4), TrainLora(epochs=4)),
        (instead("edit_prompt"), EditPrompt()),
        (instead("rollback", to_round=1), Rollback(to_round=1)),
        (instead("train_lora", epochs="4", learning_rate="0.002", fresh="true"),
         TrainLora(epochs=4, learning_rate=0.002, fresh=True)),
        (instead("edit_prompt", parts='["system", "demos"]'), EditPrompt(parts=("system", "demos"))),
    ],
)  # fmt: skip
def test_an_answer_is_what_it_says_also_as_forms_of_chat_front_ends_send_it(answer: Any, meant: object) -> None:
    assert read(answer, Stop(), rounds=2) == (meant, "")


def test_an_edit_of_the_planned_action_keeps_the_settings_that_it_does_not_name() -> None:
    planned = TrainLora(epochs=10, rows="refined", rank=8)
    assert read(instead("train_lora", epochs=4), planned, rounds=2) == (planned.model_copy(update={"epochs": 4}), "")


@pytest.mark.parametrize(
    ("answer", "rounds", "fault"),
    [
        (instead("train_lora", epoch=4), 2, "epoch is unknown (did you mean epochs?)"),
        (instead("train_lora", quickly=True), 2, "quickly is unknown (there is rows, epochs,"),
        (instead("train_lora", bare="maybe"), 2, "bare must be true or false, but it is 'maybe'"),
        (instead("train_lora", rows="all"), 2, "rows must be original, refined or both, but it is 'all'"),
        (instead("rollback", to_round=2), 2, "to_round must be between 0 and 1, but it is 2"),
        (instead("rollback", to_round=0), 0, "there has been no round to go back from"),
    ],
)
def test_what_is_wrong_with_an_action_is_a_sentence(answer: Any, rounds: int, fault: str) -> None:
    action, sentence = read(answer, Stop(), rounds)
    assert action is None and fault in sentence


def test_a_question_of_an_earlier_version_is_read() -> None:
    old = {"number": 2, "decision": DECISION.model_dump(mode="json"), "cost": "2 epochs over up to 40 rows"}
    asked = Question.model_validate(old)
    assert asked.decision == DECISION and wording.action_cost(asked.cost) == old["cost"]


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (Cost(), "nothing"),
        (COST, "2 epochs over up to 40 rows, then 12 answers to judge it"),
        (
            Cost(prompts=5, rows_per_prompt=8, validation_answers=12, llm_calls=11),
            "up to 5 prompts on up to 8 rows each, then 12 answers to judge the best, "
            "and up to about 11 calls to the external LLM",
        ),
        (
            Cost(prompts=5, rows_per_prompt=8, search_answers=72, validation_answers=12, llm_calls=8),
            "up to 72 answers while GEPA searches, up to 5 prompts on up to 8 rows each, then 12 answers to judge the "
            "best, and up to about 8 calls to the external LLM",
        ),
        (
            Cost(test_answers=24, judged=True),
            "24 answers on the test rows, and calls to the judging LLM for every answer",
        ),
    ],
)
def test_a_cost_in_words(cost: Cost, words: str) -> None:
    assert wording.action_cost(cost) == words


def test_a_pace_is_of_the_lever_and_of_work_alone() -> None:
    first, [edit, train, *_] = a_baseline(), the_story()
    assert [row.decision.move.action for row in (edit, train)] == ["edit_prompt", "train_lora"]
    assert pace_of("edit_prompt", [], first) is None, "its seconds hold the loading of the model"
    scored = first.model_copy(update={"pace": 0.01})
    assert (pace_of("edit_prompt", [], scored), pace_of("train_lora", [], scored)) == (0.01, 0.01 / FASTER)
    paces = [row.trial.spend.seconds / row.trial.spend.forward_tokens for row in (edit, train)]
    assert pace_of("train_lora", [edit], scored) == pytest.approx(paces[0] / FASTER)
    assert pace_of("train_lora", [edit, train], scored) == pytest.approx(paces[1])
    assert pace_of("edit_prompt", [train], scored) == 0.01


@pytest.mark.parametrize(
    ("left", "said"),
    [(None, ", about 20 min at most"), (3600.0, ", about 20 min at most"),
     (540.0, ", about 20 min at most (the budget has only 9 min left)")],
)  # fmt: skip
def test_a_plan_beyond_the_budget_says_so(left: float | None, said: str) -> None:
    assert expected(TrainLora(epochs=4), Forecast(lever="train_lora", seconds=600, epochs=2), left) == said


def test_a_training_that_is_not_planned_is_as_the_rules_train_where_it_names_nothing() -> None:
    rules = TrainLora(rows="refined", epochs=5, rank=4)
    edit = Decision(move=EditPrompt(), reason="Form is lacking.", numbers={})
    asked = Question.model_validate(question(1, edit, Cost(), training=rules))
    call = record_of(call_of(TrainLora)(epochs=1), TrainLora)  # of the MCP server
    assert asked.completed(call) == rules.model_copy(update={"epochs": 1})
    assert read(as_answer(call), edit.move, 0, rules) == (asked.completed(call), "")
    bare = rules.model_copy(update={"bare": True})
    given = read(as_answer(TrainLora(rows="original")), edit.move, 0, bare)[0]
    assert isinstance(given, TrainLora) and not given.bare, "rows as given need not have the form"
    same = read(as_answer(TrainLora(epochs=1)), edit.move, 0, bare)[0]
    assert isinstance(same, TrainLora) and same.bare
    planned = Question.model_validate(question(1, DECISION, Cost(), training=rules))
    assert planned.completed(TrainLora(rank=2)) == TrainLora(epochs=2, rank=2), "planned comes before the rules"
    assert planned.completed(EditPrompt(failures="style")) == EditPrompt(failures="style")


def test_what_an_action_does_not_name_is_left_out_on_its_way_to_another_process() -> None:
    [action] = [json.loads(wire.request("act", {"action": TrainLora(epochs=1)}))["arguments"]["action"]]
    assert action == {"action": "train_lora", "epochs": 1}
