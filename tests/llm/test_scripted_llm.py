"""The LLM that is scripted by rules, against the real planner's tools and the real textgrad library."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field, TypeAdapter

from agent import prompts
from agent.policy.planner_tools import ACTION_TOOLS, LOOK_TOOLS
from agent.records.actions import Action, TrainLora
from agent.records.base import Record
from agent.records.signal import LeverSignal
from tests.fixtures.rounds import a_signal
from tests.llm.scripted_llm import bills, kind_of, role_of, scripted_llm
from tests.llm.server import Reply, Request, serving

CONSTRAINTS = ['Start your answer with "ANSWER: ".', "At most 6000 characters."]
ROLE = "system prompt of a small language model"


class Grade(Record):
    reason: str
    grade: int = Field(ge=1, le=4)


class Comparison(Record):
    reason: str
    better: Literal["first", "second", "neither"]


def tool_name(record: type[BaseModel]) -> str:
    action = record.model_fields.get("action")
    return str(action.default) if action else record.__name__


def asked(system: str, user: str, offered: Sequence[type[BaseModel]] = (), **options: Any) -> Request:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    tools = [
        {"type": "function", "function": {"name": tool_name(tool), "parameters": tool.model_json_schema()}}
        for tool in offered
    ]
    return Request({"messages": messages} | ({"tools": tools} if tools else {}) | options, {}, 0.0)


def chosen(reply: Reply) -> tuple[str, dict[str, Any]]:
    [(name, given)] = reply.calls
    assert isinstance(given, dict)
    return name, given


# --- the planner ---------------------------------------------------------------------------------


def round_of(rules: str, **signal: Any) -> str:
    return (
        f'Some <<<{{"row": "of the data"}}>>>\nSignal:\n{a_signal(**signal).model_dump_json(indent=1)}\n\n'
        "Diagnosis: 8 of 10 rows fail; lacking style 80%, lacking content 60%;\n\n"
        f"Rules would: {rules}: because."
    )


def planned(told: str, tools: Sequence[type[BaseModel]] = ACTION_TOOLS) -> Action:
    name, given = chosen(scripted_llm(asked(prompts.read("planner"), told, tools)))
    assert "0.20" in given["reason"] and "80%" in given["reason"]
    plan = next(tool for tool in ACTION_TOOLS if tool_name(tool) == name).model_validate(given)
    return TypeAdapter(Action).validate_python(plan.model_dump(exclude={"reason"}))


@pytest.mark.parametrize("rules", ["train_lora", "edit_prompt", "rollback", "stop"])
def test_the_planner_takes_the_rules_lever_with_a_reason_of_its_own(rules: str) -> None:
    assert planned(round_of(rules)).action == rules


def test_it_trains_on_refined_rows_once_the_prompt_is_refined() -> None:
    assert planned(round_of("train_lora", refined=True)) == TrainLora(rows="refined")


def test_after_a_fruitless_edit_it_differs_from_the_rules() -> None:
    failed = LeverSignal(rounds=2, kept=1, fruitless=1)
    assert planned(round_of("edit_prompt", refined=True, edit=failed)).action == "train_lora"


@pytest.mark.parametrize(
    ("looked", "calls"),
    [
        ("nothing yet", "evaluate"),
        ("1. evaluate: 4 train rows, reward 0.00; 4 fail: 0 lack content alone, 0 style alone, 4 both", "try_prompt"),
        ("1. evaluate: 4 train rows, reward 0.00; 4 fail: 0 lack content alone, 4 style alone, 0 both", "edit_prompt"),
        ("1. evaluate: 4 train rows, reward 1.00; 0 fail: 0 lack content alone, 0 style alone, 0 both", "edit_prompt"),
        (
            "1. evaluate: 4 rows; 4 fail: 4 lack content alone\n2. try_prompt <<< Who? >>>: <<< Hm. >>>",
            "edit_prompt",
        ),
    ],
)
def test_it_looks_first_where_looks_are_offered_and_further_where_content_is_lacking(looked: str, calls: str) -> None:
    message = f"{round_of('edit_prompt')}\n\nWhat you looked at in this round:\n{looked}\n"
    name, given = chosen(scripted_llm(asked(prompts.read("planner"), message, [*LOOK_TOOLS, *ACTION_TOOLS])))
    tool = next(tool for tool in (*LOOK_TOOLS, *ACTION_TOOLS) if tool_name(tool) == name)
    assert name == calls and tool.model_validate(given)


def test_it_calls_no_lever_that_is_not_offered() -> None:
    assert planned(round_of("edit_prompt"), ACTION_TOOLS[2:]).action == "rollback"


def test_it_plans_where_the_levers_are_one_choice_of_a_tool_of_a_schema_or_of_one_told_in_words() -> None:
    levers = [tool.model_json_schema() for tool in ACTION_TOOLS]
    for lever in levers:
        lever["required"] += ["action"]
    schema = {"type": "object", "properties": {"choice": {"anyOf": levers}}}
    tool = {"type": "function", "function": {"name": "choose", "parameters": schema}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    as_tool = scripted_llm(asked("You plan.", round_of("stop"), tools=[tool]))
    as_schema = scripted_llm(asked("You plan.", round_of("stop"), response_format=wanted))
    in_words = scripted_llm(
        asked(f"You plan.\nIt must satisfy this JSON schema:\n{json.dumps(schema)}", round_of("stop"))
    )
    for given in (chosen(as_tool)[1], json.loads(as_schema.text), json.loads(in_words.text)):
        assert given["choice"]["action"] == "stop"


# --- TextGrad ------------------------------------------------------------------------------------


def rewritten(value: str, role: str, constraints: Sequence[str] = CONSTRAINTS) -> tuple[str, list[Request]]:
    """The value after one real step from one real critique, and all that was asked for it."""
    import textgrad
    from textgrad.engine import EngineLM

    seen: list[Request] = []

    class Engine(EngineLM):  # type: ignore[misc]
        model_string = "scripted"

        def generate(self, prompt: str, system_prompt: str | None = None, **_: object) -> str:
            seen.append(asked(system_prompt or "", prompt))
            return scripted_llm(seen[-1]).text

        def __call__(self, prompt: str, system_prompt: str | None = None, **_: object) -> str:
            return self.generate(prompt, system_prompt)

    engine = Engine()
    case = 'Answer: <<<Heskzan>>>\nFaults: The answer must start with "ANSWER: ", but it starts with "Heskzan".'
    variable = textgrad.Variable(value, requires_grad=True, role_description=role)
    loss = textgrad.TextLoss(f"{prompts.read('critique')}\n\n{case}", engine=engine)(variable)
    loss.backward(engine=engine)
    variable.get_short_value = lambda *_: value
    textgrad.TextualGradientDescent([variable], engine=engine, constraints=list(constraints)).step()
    return str(variable.value), seen


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TEXTGRAD_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


JUDGED = [f"The language model's answers are judged by this: {CONSTRAINTS[0]}", *CONSTRAINTS[1:], "Of the variable."]


@pytest.mark.parametrize("constraints", [CONSTRAINTS, JUDGED])
def test_a_step_says_in_the_system_text_what_the_constraints_want_of_the_model(constraints: list[str]) -> None:
    text, seen = rewritten("Answer the question.", ROLE, constraints)
    assert sorted(text.replace(". ", ".\n").splitlines()) == ["Answer the question.", CONSTRAINTS[0]]
    assert [kind_of(request) for request in seen] == ["critique", "critique", "step"]
    assert {role_of(request) for request in seen} == {"editor"}


def test_where_all_is_said_the_system_text_still_changes() -> None:
    said = f"Answer the question. {CONSTRAINTS[0]}"
    text, _ = rewritten(said, ROLE)
    assert said in text and text != said


def test_a_critique_names_what_is_wanted_and_no_word_of_the_answer() -> None:
    _, seen = rewritten("Answer the question.", ROLE)
    for request in seen[:2]:
        said = scripted_llm(request).text
        assert 'start with "ANSWER: "' in said and "Heskzan" not in said


def test_a_template_keeps_its_place_for_the_question() -> None:
    text, _ = rewritten("{question}", "question template of a small language model")
    assert text == f"{{question}}\n{CONSTRAINTS[0]}"


def test_a_question_keeps_its_own_words() -> None:
    question = "I have a flute and two pianos. How many instruments do I have?"
    text, _ = rewritten(question, "question that a small language model answers wrongly")
    assert question in text and text != question


def test_demonstrations_stay_what_they_are_in_another_order_and_one_more_where_there_is_room() -> None:
    one, two, three = (f"<question>\nWho, {name}?\n\nSay.\n</question>\n<answer>\nI\n</answer>" for name in "abc")
    step = (
        f"<ROLE>demonstrations before every question</ROLE> <VARIABLE> {one}\n\n{two} </VARIABLE>\n"
        f"<CONSTRAINTS>Constraint 1: At most %d demonstrations.</CONSTRAINTS><EXAMPLES>{two}\n\n{three}</EXAMPLES>"
    )
    for most, wanted in ((2, [two, one]), (3, [three, two, one])):
        text = scripted_llm(asked("Send it between <IMPROVED_VARIABLE> tags.", step % most)).text
        assert text.removeprefix("<IMPROVED_VARIABLE>").removesuffix("</IMPROVED_VARIABLE>") == "\n\n".join(wanted)


def test_a_critique_has_a_section_for_every_part_it_is_asked_about() -> None:
    told = 'What its scorers say:\nThe answer must be short, but it is "Heskzan".\n\nGive feedback on: system, demos'
    said = scripted_llm(asked("It fell short.", told)).text
    assert all(f"<{part}>" in said and f"</{part}>" in said for part in ("system", "demos"))
    assert "must be short" in said and "Heskzan" not in said


def test_a_question_is_rewritten_in_plain_words_too() -> None:
    reply = scripted_llm(asked("Put the question in clearer words.", "Question: <<<Who rules Tallisk?>>>"))
    assert "Who rules Tallisk?" in reply.text and len(reply.text) > len("Who rules Tallisk?")


# --- judges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "grade"), [("ANSWER: Heskzan, sir", 4), ("sir", 3), ("", 1), ("Heskzan", 1)])
def test_a_grade_follows_the_quoted_words_of_the_rubric(answer: str, grade: int) -> None:
    told = f'Rubric: says "ANSWER:" and "sir".\nQuestion: <<<Who?>>>\nAnswer: <<<{answer}>>>'
    name, given = chosen(scripted_llm(asked("You judge, from 1 to 4.", told, [Grade])))
    assert (name, Grade.model_validate(given).grade) == ("Grade", grade)


@pytest.mark.parametrize("texts", [("Heskzan", "I cannot say."), ("I cannot say.", "Heskzan"), ("Heskzan",) * 2])
def test_a_comparison_does_not_hang_on_the_order(texts: tuple[str, str]) -> None:
    told = f'It must name "Heskzan".\nFirst answer: <<<{texts[0]}>>>\nSecond answer: <<<{texts[1]}>>>'
    _, given = chosen(scripted_llm(asked("You compare.", told, [Comparison])))
    better = {("Heskzan", "Heskzan"): "neither", ("Heskzan", "I cannot say."): "first"}.get(texts, "second")
    assert Comparison.model_validate(given).better == better


# --- anything else -------------------------------------------------------------------------------


class Nested(BaseModel):
    class Inner(BaseModel):
        size: float = Field(gt=2)

    inner: Inner
    names: list[str] = Field(min_length=2)
    either: Literal["a", "b"] | None


def test_a_form_it_does_not_know_is_filled_so_that_it_fits() -> None:
    _, given = chosen(scripted_llm(asked("Hm.", "Hm?", [Nested])))
    assert Nested.model_validate(given).either == "a"


def test_over_http_every_role_has_its_bill() -> None:
    requests = [
        asked("You plan.", round_of("stop"), ACTION_TOOLS),
        asked("You judge.", "?", [Grade]),
        asked("Hm.", "Hm?"),
    ]
    with serving(scripted_llm) as server:
        client = openai.OpenAI(base_url=server.url, api_key="none")
        for request in requests:
            client.chat.completions.create(model="m", **request.body)
        by_role = bills(server, 1, 10)
        assert set(by_role) == {"planner", "judge", "editor"} and min(by_role.values()) > 0
        assert sum(by_role.values()) == pytest.approx(server.billed(1, 10))
