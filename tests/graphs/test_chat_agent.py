"""Plain language by an LLM: it acts by a user's commands, asks before what is costly, and says what records say."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BadInput, Busy, LlmUnavailable
from graphs.approval import APPROVE
from graphs.conversation.agent import ChatAgent, Event, chat_agent
from graphs.conversation.grounding import checked
from memory.run.folder import RunFolder
from tests.llm.clients import settings
from tests.llm.server import NOT_JSON, LlmServer, Reply, call, serving
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.client import LlmChat
from tools.llm.retry import ServerRetry

REJECT = {"decisions": [{"type": "reject"}]}
RECORDS = ["reward 0.25 → 0.50 (target 0.95); 2 rounds of 6 done", "round 2: train 3 epochs on 48 rows; 40 s, p 0.031"]


class Desk:
    """Commands as they were given; training is costly, going back from nothing is refused."""

    def __init__(self) -> None:
        self.done = list[str]()

    def facts(self) -> str:
        return "\n".join(RECORDS)

    def perform(self, command: str) -> str:
        if command == "/undo":
            raise BadInput("There is nothing to take back.")
        self.done.append(command)
        return f"found 0.75 by {command}"

    def carried_out(self) -> list[str]:
        return []

    def weigh(self, command: str) -> str:
        return "To be done: train 3 epochs, about 40 s." if command.startswith(("/train", "/finish")) else ""


@contextmanager
def agent(folder: RunFolder, server: LlmServer, desk: Desk, **changes: Any) -> Iterator[ChatAgent]:
    wanted = settings(server, max_tokens=400, **changes)
    chat = LlmChat(wanted, "chat", LlmBudget(UnsavedCallLog()), ServerRetry(0, 1, lambda _: None))
    with chat_agent(folder, chat, desk) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "mayors", "name: mayors", tmp_path, "0" * 12, name="run")


def heard(folder: RunFolder, script: list[Reply], *said: str) -> tuple[list[Event], Desk]:
    desk = Desk()
    with serving(script) as server, agent(folder, server, desk) as made:
        return [event for text in said for event in made.hear(text)], desk


@pytest.mark.parametrize(
    ("tool", "command"),
    [
        (call("edit_prompt", instruction="One word."), "/edit One word."), (call("approve"), "/approve"),
        (call("reject", reason="too slow"), "/reject too slow"), (call("rollback", to_round=1), "/rollback 1"),
        (call("run_rounds", rounds=3), "/run 3"), (call("set_limits", target=0.9, rounds=None), "/set target=0.9"),
        (call("cancel_step"), "/stop"),
    ],
)  # fmt: skip
def test_what_the_llm_chooses_is_done_by_the_command_that_a_user_has(
    folder: RunFolder, tool: Reply, command: str
) -> None:
    events, desk = heard(folder, [tool], "as I said: 3 rounds, 90%, round 1")
    assert desk.done == [command]
    assert events == [Event(kind="command", text=command)], "what the command answers, the user has seen"


def test_it_looks_and_then_answers_with_what_it_found(folder: RunFolder) -> None:
    script = [call("explain_round", number=2), call("answer", text="In round 2 it found 0.75.")]
    events, desk = heard(folder, script, "What happened in the second round?")
    assert desk.done == ["/why 2"]
    assert [event.text for event in events] == ["/why 2", "In round 2 it found 0.75."]


def test_after_three_looks_it_can_only_answer(folder: RunFolder) -> None:
    script = [call("explain_round", number=number) for number in (1, 2, 3)] + [call("answer", text="Enough.")]
    desk = Desk()
    with serving(script) as server, agent(folder, server, desk) as made:
        assert list(made.hear("Tell me all."))[-1].text == "Enough."
        assert set(server.requests[-1].tools) == {"answer"}


@pytest.mark.parametrize(("answer", "done"), [(APPROVE, ["/train epochs=3"]), (REJECT, [])])
def test_it_asks_before_it_trains_and_the_question_outlives_the_process(
    folder: RunFolder, answer: dict[str, object], done: list[str]
) -> None:
    with serving([call("train_lora", epochs=3, rows=None)]) as server:
        with agent(folder, server, Desk()) as made:
            [asked] = made.hear("Please teach it the facts, in three epochs.")
            assert asked == Event(kind="question", text="To be done: train 3 epochs, about 40 s.")
        desk = Desk()
        with agent(folder, server, desk) as again:
            assert again.question == asked.text
            list(again.decide(answer))
            assert desk.done == done and not again.question
            with pytest.raises(BadInput):
                again.decide(answer).__next__()


def test_an_edited_action_is_done_in_place_of_its_own(folder: RunFolder) -> None:
    edit = {"type": "edit", "edited_action": {"name": "train_lora", "args": {"epochs": 1}}}
    desk = Desk()
    with serving([call("train_lora", epochs=3, rows=None)]) as server, agent(folder, server, desk) as made:
        list(made.hear("Train it."))
        list(made.decide({"decisions": [edit]}))
        assert desk.done == ["/train epochs=1"]


def test_what_was_said_before_is_remembered_and_does_not_grow(folder: RunFolder) -> None:
    script = [call("answer", text=f"Answer {letter}.") for letter in "abcdefghij"]
    desk = Desk()
    with serving(script) as server:
        for letter in "abcdefghij":
            with agent(folder, server, desk) as made:
                list(made.hear(f"Question {letter}"))
        last = server.requests[-1].user
    assert "they: Question i" in last and "you: Answer i." in last and "Question d" not in last


def test_what_cannot_be_done_is_told(folder: RunFolder) -> None:
    events, desk = heard(folder, [call("rollback", to_round=None)], "take it back")
    assert events[-1] == Event(kind="answer", text="There is nothing to take back.") and not desk.done


def test_an_llm_that_talks_nonsense_does_nothing_and_says_so(folder: RunFolder) -> None:
    with pytest.raises(LlmUnavailable):
        heard(folder, [NOT_JSON] * 9, "Do it.")


def test_a_second_conversation_with_an_llm_is_refused(folder: RunFolder) -> None:
    refused = pytest.raises(Busy, match="The conversation about run")
    with serving([]) as server, agent(folder, server, Desk()), refused, agent(folder, server, Desk()):
        pass


def test_a_sentence_with_a_number_that_no_record_holds_is_left_out(folder: RunFolder) -> None:
    text = "The reward is 0.50. I expect 0.97 after round 2. That is 50% of what is possible."
    events, _ = heard(folder, [call("answer", text=text)], "How is it?")
    assert [event.kind for event in events] == ["left out", "answer"]
    assert events[0].text == "a sentence with 0.97, which no record holds"
    assert events[1].text == "The reward is 0.50. That is 50% of what is possible."


def test_a_number_that_only_the_user_has_said_is_no_record(folder: RunFolder) -> None:
    events, _ = heard(folder, [call("answer", text="Yes, the reward is 0.97.")], "Is the reward 0.97?")
    assert [event.kind for event in events] == ["left out", "answer"]
    assert "0.97" in events[0].text and "0.97" not in events[1].text


def test_an_answer_of_which_nothing_stands_is_what_the_records_say(folder: RunFolder) -> None:
    events, _ = heard(folder, [call("answer", text="It is at 0.99!")], "How is it?")
    assert events[-1].text == "\n".join(RECORDS)


@pytest.mark.parametrize(
    "sentence",
    ["Reward 0.5.", "Reward 0.25 and then 0.50.", "25% to 50%.", "Round 2 took 40 s.", "p is 0.03.", "1. First, it.",
     "It used 48 rows.", "The target is 95 %.", "No number at all."],
)  # fmt: skip
def test_numbers_of_the_records_may_be_rounded_or_in_per_cent(sentence: str) -> None:
    assert checked(sentence, RECORDS).text == sentence


@pytest.mark.parametrize(
    "sentence",
    ["Reward 0.52.", "It took 41 s.", "Round 3 was best.", "60% are right.", "It gained +0.3.", "p is 0.04."],
)
def test_other_numbers_may_not(sentence: str) -> None:
    assert checked(sentence, RECORDS).text == ""


@pytest.mark.parametrize(
    ("sentence", "stands"),
    [
        ("It brought +0.30.", True), ("It brought 0.30.", True), ("It brought -0.30.", False),
        ("The drift is -0.05.", True), ("The drift is −0.05.", True), ("The drift is +0.05.", False),
        ("It gained 0.05.", False), ("It fell by 0.05.", True), ("It went from 0.30 down to 0.05.", True),
    ],
)  # fmt: skip
def test_a_number_keeps_its_sign(sentence: str, stands: bool) -> None:
    assert bool(checked(sentence, ["reward +0.30, drift −0.05"]).text) == stands


def test_a_name_that_no_record_holds_is_left_out() -> None:
    assert checked("The mayor is John Doe. Shall I train?", RECORDS).text == "Shall I train?"
    assert checked("The mayor is Gallune.", [*RECORDS, "current: ANSWER: Gallune"]).text == "The mayor is Gallune."


@pytest.mark.parametrize(
    ("sentence", "done", "stands"),
    [
        ("I have trained it.", (), False), ("I trained the weights in round 1.", ("/train",), True),
        ("I trained it.", ("/train", "/edit"), False),  # it may mean now, and an answer does nothing
        ("I trained it in round 2.", ("/train", "/edit"), False), ("I rolled back.", (), False),
        ("I've rewritten the prompt in round 2.", ("/train", "/edit"), True), ("I finished the run.", (), False),
        ("I trained it in round 1.", ("/stop",), False), ("In round 2 the weights were trained.", (), False),
        ("In round 2 the weights were trained.", ("/edit", "/train"), True),
        ("The weights have been trained.", (), False), ("The weights have now been trained.", ("/train",), False),
        ("We trained the model.", (), False), ("We've just trained the model.", (), False),
        ("We trained the model in round 1.", ("/train",), True), ("The training has finished.", (), False),
        ("The prompt was rewritten in the first round.", ("/edit", "/train"), True),
        ("In the last round the weights were trained.", ("/edit", "/train"), True),
        ("The prompt was rewritten in the second round.", ("/edit", "/train"), False),
        ("The change was rolled back.", ("/train",), False), ("The run was finished.", (), False),
        ("The budget was raised.", (), False), ("The step was cancelled.", ("/train",), False),
        ("The weights have not been trained yet.", (), True), ("They weren't trained.", (), True),
        ("Once the weights were trained, the reward would rise.", (), True), ("Was it trained?", (), True),
    ],
)  # fmt: skip
def test_what_was_not_done_is_not_claimed(sentence: str, done: tuple[str, ...], stands: bool) -> None:
    assert bool(checked(sentence, [*RECORDS, "round 1: kept"], done).text) == stands


@pytest.mark.parametrize(
    ("sentence", "stands"),
    [
        ("The change was kept.", False), ("It rose to 0.50, which met the target of 0.95.", False),
        ("The model has learned the style.", False), ("Shall I keep going?", True),
    ],
)  # fmt: skip
def test_how_it_ended_is_said_only_where_a_record_does(sentence: str, stands: bool) -> None:
    assert bool(checked(sentence, RECORDS).text) == stands
    assert checked("The change was kept.", [*RECORDS, "round 1: an edit, kept"]).text == "The change was kept."


def test_a_question_is_never_taken_for_an_order(folder: RunFolder) -> None:
    script = [call("reject", reason="why would you?"), call("answer", text="Reward 0.50.")]
    events, desk = heard(folder, script, "Well, why would anybody begin like this?")
    assert desk.done == [] and events == [Event(kind="answer", text="Reward 0.50.")]


def test_a_question_stands_again_after_an_answer_to_something_else(folder: RunFolder) -> None:
    script = [call("train_lora", epochs=3, rows=None), call("answer", text="It took 40 s.")]
    desk = Desk()
    with serving(script) as server, agent(folder, server, desk) as made:
        [asked] = made.hear("Three epochs of training, if you please.")
        open_turn = made.open_turn
        assert open_turn and [event.kind for event in made.hear("How long does that take?")] == ["answer"]
        assert not made.question and list(made.ask_again(open_turn)) == [asked]
        list(made.decide(APPROVE))
        assert desk.done == ["/train epochs=3"]


@pytest.mark.parametrize("weight", ["", "To be done: train 9 epochs."])
@pytest.mark.parametrize("answer", [APPROVE, REJECT])
def test_what_has_changed_since_it_was_asked_is_not_done_and_the_answer_is_read(
    folder: RunFolder, weight: str, answer: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()
    with serving([call("train_lora", epochs=3, rows=None)]) as server, agent(folder, server, desk) as made:
        list(made.hear("Train it for 3 epochs."))
        monkeypatch.setattr(desk, "weigh", lambda _: weight)
        [said] = made.decide(answer)
        assert said.text.startswith("Nothing was done") and not desk.done and not made.question
