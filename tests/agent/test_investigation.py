"""The planner that looks before it decides, over real HTTP: what it may look at, and what it is shown of it."""

import re
from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.policy.briefing import render_inquiries
from agent.policy.planner_tools import LOOK_TOOLS
from agent.protocols import Briefing
from agent.records.actions import EditPrompt, TrainLora
from agent.records.examples import Demo, Prompt
from agent.records.looks import (
    ClassifyFailures,
    Evaluate,
    FailingRow,
    FailuresClassified,
    Finding,
    FoundPrompt,
    Inquiry,
    Look,
    PromptsFound,
    PromptTried,
    RowsScored,
    SearchPrompts,
    TryPrompt,
)
from tests.fixtures.planning import BRIEFING, FAILURES, ORDER, RULES, planner
from tests.fixtures.rounds import a_config
from tests.llm.scripted_llm import scripted_llm
from tests.llm.server import (
    BAD_KEY,
    BROKEN,
    CONTEXT_EXCEEDED,
    LlmServer,
    Reply,
    call,
    serving,
    without_tools,
)

SNAPSHOT = Path(__file__).parents[1] / "snapshots" / "planner_looks.txt"
TRAIN = call("train_lora", reason="Content is at 0.50.")
SCORED = RowsScored(
    split="train", rows=12, reward=0.25, content=0.5, style=0.75, failing=9, lacking_content=5, lacking_style=2,
    lacking_both=1, too_long=1, failures=tuple(FAILURES),
)  # fmt: skip
CLASSIFIED = FailuresClassified(
    failing=8, total=10, probed=6, content=0.3, style=0.2, both=0.3, confidence=0.8, prompt_gap=3.0, weight_gap=None,
    by="model",
)  # fmt: skip
FOUND = PromptsFound(
    asked=True,
    prompts=(
        FoundPrompt(
            prompt=Prompt(system="The words of another run.", demos=(Demo(question="1?", answer="one"),)),
            run="towns-1", task="towns", similarity=0.81, reward=0.9, gain=0.25,
        ),
    ),
)  # fmt: skip
LOOK_CALLS = {
    "evaluate": call("evaluate", reason="Do train rows fail alike?", split="train", rows=12),
    "classify_failures": call("classify_failures", reason="What is lacking?"),
    "search_prompts": call("search_prompts", reason="Has it been done before?", about="mayors", limit=1),
    "try_prompt": call("try_prompt", reason="Does it know one?", question="Who is the mayor of Tallisk?"),
}


class Looks:
    """Finds what is fixed, and notes what it is asked and told."""

    def __init__(self) -> None:
        self.asked: list[Look] = []
        self.told: list[Inquiry] = []

    def look(self, look: Look) -> Finding:
        self.asked.append(look)
        match look:
            case Evaluate():
                return SCORED
            case ClassifyFailures():
                return CLASSIFIED
            case SearchPrompts():
                return FOUND
            case TryPrompt(question=question):
                if "too long" in question:
                    raise BadInput("The model's window has no room for this question.")
                return PromptTried(question=question, answer=f"It is {ORDER}.")
        raise AssertionError(look)

    def note(self, inquiry: Inquiry) -> None:
        self.told.append(inquiry)


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def briefing(looks: Looks) -> Briefing:
    return BRIEFING._replace(investigation=looks)


def offered(server: LlmServer) -> list[set[str]]:
    """The tools of each request."""
    return [set(request.tools) for request in server.requests]


LOOKS = {str(tool.model_fields["action"].default) for tool in LOOK_TOOLS}
ACTIONS = {"train_lora", "edit_prompt", "stop"}


def test_what_it_looked_at_stands_in_its_next_question_as_in_the_snapshot(briefing: Briefing) -> None:
    script = [LOOK_CALLS["evaluate"], LOOK_CALLS["try_prompt"], LOOK_CALLS["search_prompts"], TRAIN]
    with serving(script) as server:
        decision = planner(server).decide(briefing)
        last = server.requests[-1]
    classified = Inquiry(look=ClassifyFailures(), finding=CLASSIFIED)
    system = last.said("system").partition("# How to look")
    user = last.said("user").partition("What you looked at")
    shown = f"{''.join(system[1:])}\n-----\n\n{''.join(user[1:])}\n-----\n\n{render_inquiries([classified], 2)}"
    assert shown == SNAPSHOT.read_text(encoding="utf-8"), "if the change is meant, change the snapshot too"
    assert (decision.by, decision.move.action) == ("planner", "train_lora")


def test_looks_are_recorded_in_the_decision_and_told_as_they_are_made(briefing: Briefing, looks: Looks) -> None:
    with serving([LOOK_CALLS["evaluate"], LOOK_CALLS["classify_failures"], TRAIN]) as server:
        decision = planner(server).decide(briefing)
    assert decision.inquiries == (
        Inquiry(look=Evaluate(split="train", rows=12), reason="Do train rows fail alike?", finding=SCORED),
        Inquiry(look=ClassifyFailures(), reason="What is lacking?", finding=CLASSIFIED),
    )
    assert looks.told == list(decision.inquiries)
    assert type(decision).model_validate_json(decision.model_dump_json()) == decision


def test_after_the_last_look_only_the_levers_are_offered(briefing: Briefing) -> None:
    config = a_config(planner="llm", llm={"model": "judge-1", "planner_calls": 2})
    with serving([LOOK_CALLS["evaluate"], LOOK_CALLS["classify_failures"], TRAIN]) as server:
        planner(server, config).decide(briefing)
        assert offered(server) == [LOOKS | ACTIONS, LOOKS | ACTIONS, ACTIONS]
        assert "1 look is left." in server.requests[1].said("user")
        assert "No looks are left: choose a lever." in server.requests[2].said("user")


def test_it_need_not_look(briefing: Briefing, looks: Looks) -> None:
    with serving([TRAIN]) as server:
        decision = planner(server).decide(briefing)
    assert isinstance(decision.move, TrainLora) and decision.inquiries == () and looks.asked == []


def test_without_calls_to_look_it_is_asked_as_if_there_was_nothing_to_look_at(briefing: Briefing) -> None:
    none = a_config(planner="llm", llm={"model": "judge-1", "planner_calls": 0})
    with serving([TRAIN, TRAIN]) as server:
        planner(server, none).decide(briefing)
        planner(server, none).decide(BRIEFING)
        first, second = (request.body for request in server.requests)
    assert first == second and "look" not in str(first["tools"])


def test_a_useless_call_a_repeated_one_and_one_that_cannot_be_done_are_lost_looks(
    briefing: Briefing, looks: Looks
) -> None:
    too_long = call("try_prompt", reason="Hm.", question="too long")
    too_fast = call("train_lora", reason="hurry", learning_rate=5)
    script = [too_fast, too_fast, too_long, too_long, TRAIN]
    with serving(script) as server:
        decision = planner(server).decide(briefing)
        last = server.requests[-1].said("user")
    useless, impossible, again = decision.inquiries
    assert useless.look is None and "gave no usable answer" in useless.fault
    assert impossible.fault == "The model's window has no room for this question." and impossible.finding is None
    assert again.fault == "it was asked before in this round" and len(looks.asked) == 1
    assert decision.by == "planner" and "No looks are left" in last
    assert "1. a call that could not be used" in last and "nothing, <<< The model's window" in last


@pytest.mark.parametrize("fault", [BROKEN, BAD_KEY], ids=["broken", "bad key"])
def test_where_the_llm_fails_after_a_look_the_rules_decide_and_the_look_is_kept(
    briefing: Briefing, fault: Reply
) -> None:
    with serving([LOOK_CALLS["evaluate"], *[fault] * 9]) as server:
        decision = planner(server).decide(briefing)
    assert (decision.move, decision.by) == (EditPrompt(), "rules") and decision.planner_fault
    assert [inquiry.finding for inquiry in decision.inquiries] == [SCORED]


def test_a_server_without_tools_is_asked_for_one_object_a_turn(briefing: Briefing, looks: Looks) -> None:
    with serving(without_tools(scripted_llm)) as server:
        decision = planner(server).decide(briefing)
        assert not [request for request in server.requests[2:] if request.tools]
    assert decision.by == "planner" and [type(look) for look in looks.asked] == [Evaluate, TryPrompt]


def test_in_a_small_window_rows_are_left_out_of_what_was_found(briefing: Briefing) -> None:
    with serving([LOOK_CALLS["evaluate"], CONTEXT_EXCEEDED, TRAIN]) as server:
        planner(server).decide(briefing)
        _, whole, short = (request.said("user") for request in server.requests)
    assert "Gallune" in whole and "Gallune" not in short
    assert all("1. evaluate: 12 train rows, reward 0.25" in message for message in (whole, short))


def test_texts_are_quoted_and_cut_and_the_words_of_other_runs_are_not_shown(briefing: Briefing) -> None:
    script = [LOOK_CALLS["evaluate"], LOOK_CALLS["try_prompt"], LOOK_CALLS["search_prompts"], TRAIN]
    with serving(script) as server:
        planner(server).decide(briefing)
        looked = server.requests[-1].said("user").partition("What you looked at")[2]
    assert "The words of another run" not in looked and "<<< towns-1 >>>" in looked
    quote = re.compile(r"<<< (.*?) >>>")
    assert looked.count(ORDER) > 3 and ORDER not in quote.sub("", looked)
    assert all(len(text) <= 160 for text in quote.findall(looked)), "one line each, and cut"


def test_it_cannot_look_at_test_rows() -> None:
    evaluate = next(tool for tool in LOOK_TOOLS if tool.model_fields["action"].default == "evaluate")
    assert evaluate.model_json_schema()["properties"]["split"]["enum"] == ["train", "validation"]
    with pytest.raises(ValueError, match="split"):
        evaluate.model_validate({"reason": "x", "split": "test"})


def test_the_rules_stand_by_where_every_call_is_useless(briefing: Briefing) -> None:
    with serving(lambda _: Reply("I think.")) as server:
        decision = planner(server).decide(briefing)
    rules = RULES.decide(BRIEFING)
    assert (decision.move, decision.by, decision.reason) == (rules.move, "rules", rules.reason)
    assert len(decision.inquiries) == 3 and all(inquiry.look is None for inquiry in decision.inquiries)


def test_one_failing_row_is_a_record_that_json_can_say() -> None:
    row = FailingRow(question="Who?", output="Nobody.", faults=("The content is wrong.",))
    assert FailingRow.model_validate_json(row.model_dump_json()) == row
