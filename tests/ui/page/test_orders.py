"""What a user changes through the page comes to whoever works on the run, and nothing else does."""

import re
from collections.abc import Callable

import pytest

from agent.records.actions import Rollback, TrainLora
from agent.records.limits import Limits
from agent.records.looks import TryPrompt
from graphs.approval import APPROVE, Cost, Question, question
from memory.run.folder import RunFolder
from tests.llm.clients import settings
from tests.llm.server import call, serving
from tests.ui.page.conftest import Pages
from tests.ui.page.steers import Steered
from ui.talk.llm import LlmDesk, listening
from ui.talk.talk import Talk


@pytest.fixture
def page(pages: Callable[..., Pages], story: RunFolder) -> Pages:
    return pages()


@pytest.fixture
def asking(page: Pages, story: RunFolder) -> Steered:
    """The run waits with the plan of its last round, a training."""
    steered = page.steered(story)
    asked = question(5, story.rounds()[-1].decision, Cost(epochs=4, training_rows=96, validation_answers=12))
    steered.becomes(condition="waiting", question=Question.model_validate(asked))
    return steered


def post(page: Pages, order: str, **form: object) -> str:
    answer = page.client.post(f"/runs/valley-1/{order}", data=form)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_the_open_question_stands_with_reason_and_cost(page: Pages, asking: Steered) -> None:
    text = page.get("/runs/valley-1")
    assert "Round 5 waits for you" in text and "Words have done what they can" in text
    assert "Train 4 epochs on 96 rows in the wanted form" in text and "4 epochs over up to 96 rows" in text
    assert '<input name="epochs" type="number" step="1" min="1" max="20" value="4">' in text


def test_approved(page: Pages, asking: Steered) -> None:
    text = post(page, "answer", decision="approve", number=5)
    assert asking.asked == [("answer", APPROVE)]
    assert "working" in text and "waits for you" not in text


def test_rejected_with_a_reason(page: Pages, asking: Steered) -> None:
    post(page, "answer", decision="reject", number=5, message="too dear")
    assert asking.asked == [("answer", {"decisions": [{"type": "reject", "message": "too dear"}]})]


def test_changed_in_the_form(page: Pages, asking: Steered) -> None:
    fields = {"epochs": "2", "learning_rate": "0.0005", "fresh": "true", "rows": "both", "replay": ""}
    post(page, "answer", decision="edit", number=5, action="train_lora", **fields)
    [(_, given)] = asking.asked
    args = {"epochs": 2, "learning_rate": 0.0005, "fresh": True, "rows": "both"}
    assert given == {"decisions": [{"type": "edit", "edited_action": {"name": "train_lora", "args": args}}]}


def test_another_action_has_its_own_settings(page: Pages, asking: Steered) -> None:
    text = page.get("/runs/valley-1/settings?action=edit_prompt")
    assert text.count('name="parts"') == 4 and "failures" in text
    post(page, "answer", decision="edit", number=5, action="edit_prompt", parts=["system", "demos"], failures="style")
    [(_, given)] = asking.asked
    args = {"parts": ["system", "demos"], "failures": "style"}
    assert given == {"decisions": [{"type": "edit", "edited_action": {"name": "edit_prompt", "args": args}}]}


def test_a_training_that_is_not_planned_is_offered_as_the_rules_train(page: Pages, story: RunFolder) -> None:
    steered, edit = page.steered(story), story.rounds()[0].decision
    assert edit.move.action == "edit_prompt"
    rules = TrainLora(rows="refined", epochs=7)
    asked = Question.model_validate(question(5, edit, Cost(), training=rules))
    steered.becomes(condition="waiting", question=asked)
    text = page.get("/runs/valley-1/settings?action=train_lora")
    assert 'name="epochs" type="number" step="1" min="1" max="20" value="7"' in text
    desk = LlmDesk()
    desk.talk = Talk(steered, story, lambda _: None)
    assert desk.weigh("/train").startswith("To be done: train 7 epochs on the train rows in the wanted form")


def test_an_answer_to_a_question_of_before_is_refused(page: Pages, asking: Steered) -> None:
    answer = page.client.post(
        "/runs/valley-1/answer", data={"decision": "approve", "number": 4}, headers={"hx-request": "true"}
    )
    assert answer.status_code == 422 and "Another question is open by now." in answer.text
    assert 'hx-target="#said"' in answer.text and asking.asked == []


@pytest.mark.parametrize(
    "form",
    [
        {"decision": "edit", "number": 5, "action": "stop"},
        {"decision": "maybe", "number": 5},
        {"decision": "approve"},
        {"decision": "edit", "number": 5, "action": "train_lora", "epochs": "many"},
    ],
)
def test_what_makes_no_answer_is_refused(page: Pages, asking: Steered, form: dict[str, object]) -> None:
    assert page.client.post("/runs/valley-1/answer", data=form).status_code == 422
    assert asking.asked == []


@pytest.mark.parametrize(
    ("order", "form", "asked"),
    [
        ("pause", {}, ("pause", False)),
        ("pause", {"now": "true"}, ("pause", True)),
        ("cancel", {}, ("cancel_step", None)),
        ("go-on", {}, ("go_on", None)),
        ("go-on", {"rounds": "3"}, ("go_on", 3)),
        ("roll-back", {"number": "1"}, ("act", Rollback(to_round=1))),
        ("extend", {"rounds": "9", "target": "0.9", "usd": ""}, ("extend", {"rounds": 9, "target": 0.9})),
        ("finish", {}, ("finish", None)),
        ("leave", {}, ("leave", None)),
    ],
)
def test_each_button_gives_its_order(
    page: Pages, story: RunFolder, order: str, form: dict[str, str], asked: tuple[str, object]
) -> None:
    steered = page.steered(story)
    assert 'hx-target="#live"' in post(page, order, **form)
    assert steered.asked == [asked]


@pytest.mark.parametrize("order", ["pause", "cancel", "leave"])
def test_what_nobody_works_on_cannot_be_broken_off(page: Pages, order: str) -> None:
    answer = page.client.post(f"/runs/valley-1/{order}")
    assert answer.status_code == 422 and "Resume it first" in answer.text
    assert page.steers.working == {}


def test_resuming_takes_a_worker_that_asks_or_does_not(page: Pages) -> None:
    post(page, "go-on", supervised="true")
    assert page.steers.supervised is True and page.steers.working["valley-1"].asked == []  # it works on at once
    page.steers.working.clear()
    post(page, "go-on")
    assert page.steers.supervised is False


def test_an_extension_without_a_limit_is_none(page: Pages) -> None:
    assert page.client.post("/runs/valley-1/extend", data={"rounds": ""}).status_code == 422


def test_the_model_answers_beside_the_question(page: Pages, story: RunFolder) -> None:
    steered = page.steered(story)
    text = post(page, "try", question="Who is <b>it</b>?")
    assert "ANSWER: Heskzan" in text and "I see." in text and "<b>it" not in text
    assert steered.asked == [("look", TryPrompt(question="Who is <b>it</b>?", beside=(0,)))]


def test_the_model_of_a_run_that_nobody_works_on_is_not_asked_since_that_would_go_on_with_it(page: Pages) -> None:
    answer = page.client.post("/runs/valley-1/try", data={"question": "Who?"})
    assert answer.status_code == 422 and "Resume it" in answer.text and page.steers.working == {}


def say(page: Pages, words: str) -> str:
    """With the mark of the plan that the page shows."""
    shown = re.search(r'name="seen" value="(\w+)" form="talk"', page.get("/runs/valley-1"))
    return post(page, "say", said=words, **({"seen": shown[1]} if shown else {}))


def test_what_is_said_is_done_in_commands_and_in_words(page: Pages, asking: Steered) -> None:
    assert "train 4 epochs on 96 rows in the wanted form" in say(page, "/plan")
    assert "Words have done what they can" in say(page, "why?")
    text = say(page, "yes")
    assert asking.asked == [("answer", APPROVE)] and 'class="mine"' in text


def test_a_question_of_the_conversation_is_answered_by_its_buttons(page: Pages, asking: Steered) -> None:
    text = say(page, "rolback 1")
    assert "Did you mean /rollback 1?" in text and '<button name="said" value="yes">Yes</button>' in text
    say(page, "yes")
    [(order, given)] = asking.asked
    assert order == "answer" and "rollback" in str(given)


def test_undo_says_what_it_takes_back_and_that_it_is_a_round(page: Pages, asking: Steered, story: RunFolder) -> None:
    text, (_, _, third, fourth) = say(page, "undo"), story.rounds()
    assert "Taken back: round 4 (train" in text and fourth.reward > third.reward
    assert f"Back to the pair after round 3: reward {fourth.reward:.2f} → {third.reward:.2f}." in text
    assert "a round of its own, number 5, which counts towards the budget" in text
    [(order, given)] = asking.asked
    assert order == "answer" and "'to_round': 3" in str(given)


def test_undo_on_a_stopped_run_says_how_to_go_on_as_the_button_says_it(page: Pages) -> None:
    assert "Nobody works on the run now. Resume it first, or say /go." in say(page, "undo")
    say(page, "/go")
    assert "valley-1" in page.steers.working and page.steers.supervised is True


def test_an_llm_is_asked_under_the_limits_that_hold_now(asking: Steered, story: RunFolder) -> None:
    with serving([call("status"), call("answer", text="It waits.")]) as server:
        priced = settings(server, price={"input": 1.0, "output": 1.0})
        heard = list[str]()
        talk = Talk(asking, story, lambda said: heard.append(said.text))
        with listening(story, priced, Limits(rounds=6, usd=0.0), lambda _: None) as listener:
            talk.listen(listener)
            asking.becomes(limits=Limits(rounds=6, usd=0.0))
            talk.hear("Would you kindly tell me where all of this stands?")
            assert "are left of budget.usd 0" in " ".join(heard) and not server.requests
            asking.becomes(limits=Limits(rounds=6, usd=5.0))  # by `nesylora ctl extend`, say
            talk.hear("Would you kindly tell me where all of this stands?")
        assert heard[-1].startswith("It waits.") or "It waits." in heard


def test_rounds_without_asking_are_left_to_the_worker(page: Pages, asking: Steered) -> None:
    assert "Up to 3 rounds" in say(page, "/run 3")
    assert asking.asked == [("go_on", 3)]


def test_more_rounds_than_the_budget_has_raise_it_as_in_a_terminal(page: Pages, asking: Steered) -> None:
    asking.becomes(limits=Limits(rounds=5))
    text = say(page, "two more rounds")
    assert "The budget is now 6 rounds." in text and "Up to 2 rounds are done without asking." in text
    assert asking.asked == [("extend", {"rounds": 6}), ("go_on", 2)]


def test_an_llm_that_would_go_on_unasked_is_made_to_ask_first(asking: Steered, story: RunFolder) -> None:
    desk = LlmDesk()
    desk.talk = Talk(asking, story, lambda _: None, by_worker=True)
    assert "trainings too: 3" in desk.weigh("/run 3")
    desk.talk = Talk(asking, story, lambda _: None)
    assert desk.weigh("/run 3") == "", "this conversation asks before each training by itself"


def test_there_is_nothing_to_add_to_a_limit_that_does_not_hold(page: Pages, asking: Steered) -> None:
    asking.becomes(limits=Limits(rounds=6))
    for more in ("minutes=+10", "usd=+1", "train_tokens=+5"):
        text, (name, _, value) = say(page, f"/set {more}"), more.partition("=+")
        assert f"{name} has no limit now" in text and f"/set {name}={value} sets one" in text
    assert asking.asked == []
    say(page, "/set rounds=+2")
    assert asking.asked == [("extend", {"rounds": 8})]


@pytest.mark.parametrize("condition", ["working", "paused"])
def test_an_llm_asks_before_it_queues_a_training(asking: Steered, story: RunFolder, condition: str) -> None:
    asking.becomes(condition=condition, question=None)
    desk = LlmDesk()
    desk.talk = Talk(asking, story, lambda _: None)
    assert "train the weights (epochs 9)" in desk.weigh("/train epochs=9")
    assert desk.weigh("/train") and not desk.weigh("/set target=0.9")


def test_an_llm_asks_before_it_reopens_a_finished_run(asking: Steered, story: RunFolder) -> None:
    asking.becomes(condition="finished", question=None)
    desk = LlmDesk()
    desk.talk = Talk(asking, story, lambda _: None)
    assert "reopens the run; its test rows then count as seen" in desk.weigh("/set target=0.99")


def test_what_is_not_understood_does_nothing(page: Pages, asking: Steered) -> None:
    assert "I do not understand that" in say(page, "lorem ipsum dolor")
    assert "is-fault" in say(page, "/rollback much")
    assert asking.asked == []


def test_what_is_said_and_answered_stays_text(page: Pages, asking: Steered) -> None:
    assert "<script" not in say(page, "<script>alert(1)</script>") + say(page, "/try <script>")
