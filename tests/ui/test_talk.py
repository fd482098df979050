"""What a yes answers: what was asked last, and a plan that the user has seen; whoever else talks with the run."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from agent.records.actions import EditPrompt, Stop, TrainLora
from agent.records.limits import Limits
from agent.records.looks import Finding, Look
from graphs.approval import APPROVE, Cost, Question, question
from memory.run.folder import RunFolder
from tests.fixtures.story import TASK, make_run
from tests.llm.clients import settings
from tests.llm.server import OVERLOADED, LlmServer, call, serving
from tests.ui.page.conftest import Pages
from tests.ui.page.conftest import pages as pages
from tests.ui.page.steers import Steered
from ui.talk import plans
from ui.talk.llm import Listener, LlmDesk, listening
from ui.talk.talk import Talk

WISH = "Would you teach it all of the facts in nine epochs"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", "sk-secret")


@pytest.fixture
def story(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "runs", finished=False)


def plan_of(story: RunFolder, number: int, move: EditPrompt | TrainLora | Stop, reason: str = "") -> Question:
    decision = story.rounds()[-1].decision.model_copy(update={"move": move, "reason": reason or "It helps."})
    return Question.model_validate(question(number, decision, Cost(epochs=4, training_rows=96, validation_answers=12)))


@pytest.fixture
def run(story: RunFolder) -> Steered:
    """It waits with a training as the plan of round 5."""
    steered = Steered(story)
    steered.becomes(condition="waiting", question=plan_of(story, 5, TrainLora(epochs=4)), limits=Limits(rounds=9))
    return steered


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def talk(run: Steered, story: RunFolder, heard: list[str]) -> Talk:
    made = Talk(run, story, lambda said: heard.append(said.text))
    made.changed(run.status())
    return made


def actions(run: Steered) -> list[str]:
    """What it was asked to do: the action's name where one was put in place of the plan."""
    named = [re.search(r"'name': '(\w+)'", str(given)) for _, given in run.asked]
    return [name[1] if name else order for name, (order, _) in zip(named, run.asked, strict=True)]


def visit(story: RunFolder, server: LlmServer) -> AbstractContextManager[Listener]:
    return listening(story, settings(server, max_tokens=400), Limits(rounds=9), lambda _: None)


# --- a question that has lost its place ----------------------------------------------------------------


def test_a_yes_after_a_command_took_the_place_of_an_llms_question_is_for_the_plan(
    run: Steered, story: RunFolder, talk: Talk
) -> None:
    with serving([call("train_lora", epochs=9, rows=None)]) as server:
        with visit(story, server) as listener:
            talk.listen(listener)
            talk.hear(WISH)
            assert talk.llm_asks
            talk.hear("/edit")
            assert not listener._agent.question
        run.becomes(condition="waiting", question=plan_of(story, 6, EditPrompt()))
        talk.changed(run.status())
        with visit(story, server) as again:
            talk.listen(again)
            talk.hear("yes")
    assert actions(run) == ["edit_prompt", "answer"] and run.asked[-1] == ("answer", APPROVE)


def test_what_an_llm_asked_is_gone_with_the_end_of_the_run(run: Steered, story: RunFolder, talk: Talk) -> None:
    with serving([call("train_lora", epochs=9, rows=None)]) as server, visit(story, server) as listener:
        talk.listen(listener)
        talk.hear(WISH)
        run.becomes(condition="finished", question=None)
        talk.changed(run.status())
        talk.hear("yes")
        assert not listener._agent.question and not run.asked


def test_an_llms_question_stands_after_other_words_and_after_a_failure(
    run: Steered, story: RunFolder, talk: Talk, heard: list[str]
) -> None:
    script = [call("train_lora", epochs=9, rows=None), call("answer", text="It waits."), *[OVERLOADED] * 9]
    with serving(script) as server, visit(story, server) as listener:
        talk.listen(listener)
        for words in (WISH, "So is it slow, or what do people say about such things", "Hm, tell me of the weather"):
            talk.hear(words)
            assert "do it? (yes/no)" in heard[-1] and "9 epochs" in heard[-1]
        talk.hear("yes")
    assert actions(run) == ["train_lora"]


def test_a_plan_that_comes_while_an_llm_asks_leaves_its_question_last(
    run: Steered, story: RunFolder, talk: Talk, heard: list[str]
) -> None:
    """And what it asked about has changed with the plan, so that nothing is done."""
    with serving([call("train_lora", epochs=9, rows=None)]) as server, visit(story, server) as listener:
        talk.listen(listener)
        talk.hear(WISH)
        other = plan_of(story, 6, EditPrompt())
        run.becomes(question=other.model_copy(update={"cost": Cost(epochs=1, training_rows=12)}))
        talk.changed(run.status())
        assert "9 epochs on 96 rows" in heard[-1]
        talk.hear("yes")
    assert not run.asked and "Nothing was done, since that has changed." in heard[-1]


# --- a plan that nobody has seen -----------------------------------------------------------------------


@pytest.mark.parametrize("said", ["yes", "no", "/edit", "train 2 epochs", "go on"])
@pytest.mark.parametrize("number", [5, 6])
def test_words_about_a_plan_that_was_not_shown_do_nothing_and_it_is_shown(
    run: Steered, story: RunFolder, talk: Talk, heard: list[str], said: str, number: int
) -> None:
    """Another browser has turned the plan down: the new one may be of the same round."""
    run.becomes(question=plan_of(story, number, EditPrompt(failures="style")))
    talk.hear(said)
    assert not run.asked and any(f"Round {number}: rewrite the prompt" in text for text in heard)
    talk.hear(said)
    assert len(run.asked) == 1


def test_the_page_answers_for_the_plan_that_it_shows(pages: Callable[..., Pages], story: RunFolder) -> None:
    page = pages()
    steered = page.steered(story)
    first, second = plan_of(story, 5, TrainLora(epochs=4)), plan_of(story, 5, EditPrompt())
    steered.becomes(condition="waiting", question=first)
    assert f'name="seen" value="{plans.mark(first)}" form="talk"' in page.get("/runs/valley-1")
    steered.becomes(question=second)
    for order, form in (("say", {"said": "yes"}), ("answer", {"decision": "approve", "number": "5"})):
        for seen in ({"seen": plans.mark(first)}, {} if order == "say" else {"seen": "0"}):
            answer = page.client.post(f"/runs/valley-1/{order}", data=form | seen)
            assert "nother plan waits" in answer.text and not steered.asked
    shown = page.client.post("/runs/valley-1/say", data={"said": "/plan"}).text
    assert "Round 5: rewrite the prompt" in shown
    assert f'name="seen" value="{plans.mark(second)}" form="talk"' in page.get("/runs/valley-1")
    page.client.post("/runs/valley-1/say", data={"said": "yes", "seen": plans.mark(second)})
    assert steered.asked == [("answer", APPROVE)]


# --- the page beside a terminal, and its own LLM ---------------------------------------------------------


@pytest.fixture
def with_llm(pages: Callable[..., Pages], story: RunFolder) -> Callable[[LlmServer], tuple[Pages, Steered]]:
    def opened(server: LlmServer) -> tuple[Pages, Steered]:
        wanted = settings(server, max_tokens=400).model_dump(mode="json", exclude_unset=True)
        story.task_file.write_text(yaml.safe_dump({**TASK, "llm": wanted}), encoding="utf-8")
        page = pages()
        steered = page.steered(story)
        steered.becomes(condition="waiting", question=plan_of(story, 5, TrainLora(epochs=4)), limits=Limits(rounds=9))
        return page, steered

    return opened


def say(page: Pages, steered: Steered, words: str) -> str:
    asked = steered.status().question
    form = {"said": words, "seen": plans.mark(asked) if asked else ""}
    answer = page.client.post("/runs/valley-1/say", data=form)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_the_page_hears_commands_while_a_terminal_has_the_llm(
    with_llm: Callable[[LlmServer], tuple[Pages, Steered]], story: RunFolder
) -> None:
    with serving([]) as server:
        page, steered = with_llm(server)
        with visit(story, server):
            assert "4 epochs" in say(page, steered, "/plan")
            text = say(page, steered, "Lorem ipsum, would you think so")
            assert "Plain language is off: " in text and "I do not understand that." in text
            say(page, steered, "yes")
    assert steered.asked == [("answer", APPROVE)]


def test_what_an_llm_asked_waits_for_it_and_can_be_turned_down_without_it(
    with_llm: Callable[[LlmServer], tuple[Pages, Steered]], story: RunFolder
) -> None:
    with serving([call("train_lora", epochs=9, rows=None)]) as server:
        page, steered = with_llm(server)
        say(page, steered, WISH)
        with visit(story, server):
            assert "its question still stands: To be done: train 9 epochs" in say(page, steered, "yes")
            assert "Nothing was done." in say(page, steered, "no")
    assert not steered.asked


def test_on_the_page_a_yes_after_a_command_is_for_the_plan(
    with_llm: Callable[[LlmServer], tuple[Pages, Steered]], story: RunFolder
) -> None:
    with serving([call("train_lora", epochs=9, rows=None)]) as server:
        page, steered = with_llm(server)
        assert "9 epochs" in say(page, steered, WISH)
        say(page, steered, "/edit")
        steered.becomes(condition="waiting", question=plan_of(story, 6, EditPrompt()))
        say(page, steered, "yes")
    assert actions(steered) == ["edit_prompt", "answer"]


def test_a_yes_on_a_new_page_does_not_answer_what_an_llm_asked_before(
    with_llm: Callable[[LlmServer], tuple[Pages, Steered]], story: RunFolder, talk: Talk
) -> None:
    with serving([call("train_lora", epochs=9, rows=None)]) as server:
        with visit(story, server) as listener:
            talk.listen(listener)
            talk.hear(WISH)
        page, steered = with_llm(server)
        assert "9 epochs" in say(page, steered, "yes") and not steered.asked
        say(page, steered, "yes")
    assert actions(steered) == ["train_lora"]


# --- what goes to whom, and rounds that go unasked -------------------------------------------------------


class Moving(Steered):
    """A run that another plan comes to in the middle of a look."""

    talk: Talk
    then: Question

    def look(self, look: Look) -> Finding:
        self.becomes(question=self.then)
        self.talk.changed(self.status())
        return super().look(look)


def test_a_plan_that_comes_in_an_llms_look_goes_to_the_user(story: RunFolder, heard: list[str]) -> None:
    run, desk = Moving(story), LlmDesk()
    desk.talk = run.talk = Talk(run, story, lambda said: heard.append(said.text))
    run.then = plan_of(story, 6, EditPrompt())
    found = desk.perform("/try Who?")
    assert "Heskzan" in found and "Round 6" not in found and any("Round 6: " in text for text in heard)


def test_ctrl_c_takes_back_the_rounds_that_go_unasked(run: Steered, story: RunFolder, talk: Talk) -> None:
    run.becomes(condition="working", question=None)
    talk.hear("/run 3")
    talk.tell(*talk.stop())
    run.becomes(condition="waiting", question=plan_of(story, 6, EditPrompt()))
    talk.changed(run.status())
    assert run.asked == [("cancel_step", None)]
