"""Plain words without an LLM: what a short sentence means, and what it does not."""

import pytest

from agent.errors import BadInput
from graphs.conversation.commands import BY_NAME, COMMANDS, HELP, count, nearest, parsed, settings
from graphs.conversation.lexicon import MEANINGS, NAMES
from graphs.conversation.phrases import asks, understood

SAID = {
    "/approve": ["yes", "y", "Yes!", "ok", "OK.", "okay, go ahead", "do it", "go for it", "sure",
                 "please do it", "approve", "Okay, go ahead with that.",
                 "Sounds good to me, go ahead."],
    "/reject": ["no", "n", "nope", "No.", "not that", "something else", "no thanks", "don't"],
    "/reject too slow": ["no, too slow", "No - too slow", "no: too slow"],
    "/reject it costs too much": ["no, it costs too much"],
    "/reject don't train": ["don't train"],
    "/why": ["why?", "why", "Why that?", "explain", "what is the reason?", "how come?", "Why do you want to do that?",
             "Why would you begin with that?", "why was it kept?", "why was that taken back?", "what was forgotten?"],
    "/why 3": ["why round 3?", "explain round three", "what happened in round 3?", "tell me about the round 3",
               "why was round 3 taken back?"],
    "/plan": ["what next?", "what would you do first?", "What would you do next?", "show me the plan",
              "what do you propose?",
              "what should I do now?", "now what?"],
    "/stop": ["stop", "cancel", "stop it", "stop the training", "abort", "Stop!"],
    "/pause": ["pause", "wait", "hold on", "wait a moment"],
    "/go": ["continue", "go on", "keep going", "resume"],
    "/undo": ["undo", "undo that", "take it back", "take that back, please", "revert", "undo the last round"],
    "/rollback 0": ["back to the baseline", "go back to the start", "start over"],
    "/rollback 2": ["go back to round 2", "back to round two", "rollback to 2", "return to round 2"],
    "/status": ["status", "how is it going?", "where are we?", "how much is left?", "what is the reward?", "budget?",
                "what has it cost?", "how long has it taken?"],
    "/help": ["help", "?", "what can I do?", "help please", "help us"],
    "/help train": ["help train", "help on train", "help with /train"],
    "/quit": ["quit", "exit", "bye", "that's all for today"],
    "/finish": ["finish", "end the run", "I'm done", "stop here", "good enough", "open the test rows"],
    "/diff": ["what changed?", "what has changed?", "show me the changes", "diff"],
    "/prompt": ["show me the prompt", "what does the prompt say?", "what is the prompt now?"],
    "/failures": ["what fails?", "where does it fail?", "what does it get wrong?", "show me the mistakes"],
    "/train": ["train", "train it", "let's train", "train the weights", "no, train instead", "fine-tune the model"],
    "/train epochs=2": ["train 2 epochs", "train two epochs, please", "Train it for 2 epochs", "two more epochs"],
    "/train epochs=3 rows=original": ["train 3 epochs on the original rows", "train on original rows for three epochs"],
    "/train epochs=1 bare=true": ["train 1 epoch without the few-shot examples", "train one epoch without examples"],
    "/train rows=both": ["train on both", "train with both kinds of rows"],
    "/edit": ["rewrite the prompt", "edit", "improve the prompt", "could you rewrite it"],
    "/edit Reply with one lower-case word.": ['add "Reply with one lower-case word." to the prompt',
                                              "the prompt should say: Reply with one lower-case word."],
    "/edit Answer in one word.": ["tell it to answer in one word", "instruct the model to answer in one word"],
    "/run 3": ["run 3 rounds", "do three rounds", "go on for 3 rounds"],
    "/run +2": ["two more rounds", "give it 2 more rounds", "another two rounds", "extend by 2 rounds"],
    "/run +1": ["another round", "once more"],
    "/set target=0.9": ["I want a reward of 0.9", "get it to 90%", "aim for 0.9", "set the target to 0.9", "target 0.9",
                        "I want 90 % right", "go for .9"],
    "/set target=1": ["aim for 1", "I want 100%"],
    "/set target=0.9 rounds=4": ["I want 90% right in at most 4 rounds", "reach 0.9 within four rounds"],
    "/set target=0.9 rounds=4 minutes=20": ["aim for 0.9 in 4 rounds and 20 minutes"],
    "/set rounds=8": ["at most 8 rounds", "set the budget to 8 rounds"],
    "/set minutes=20": ["at most 20 minutes"],
    "/set usd=2": ["spend at most $2", "at most 2 dollars"],
    "/try Who is the mayor?": ["ask it: Who is the mayor?", 'try "Who is the mayor?"', "try Who is the mayor?"],
    "/compare 1 2": ["compare round 1 and 2", "compare rounds one with round two"],
    "/search mayors": ["search prompts about mayors"],
    "/search": ["look for earlier prompts"],
}  # fmt: skip


@pytest.mark.parametrize(("said", "meant"), [(said, meant) for meant, all_said in SAID.items() for said in all_said])
def test_a_short_sentence_is_the_command_that_it_means(said: str, meant: str) -> None:
    assert understood(said) == meant


@pytest.mark.parametrize(
    "said",
    ["maybe", "Who is the mayor of Tallisk?", "I want it to be shorter", "yes but only if it is cheap",
     "train the dragon", "is it better to train or to edit?", "stop training so much and edit more", "90", "round",
     "why is the sky blue?", "undo the hair of the princess", "go for 2", "I need 4", "get it to 90", "I want 90 right",
     "aim for 3 in at most 4 rounds"],
)  # fmt: skip
def test_a_sentence_that_is_not_understood_to_its_end_is_not_done_by_half(said: str) -> None:
    assert understood(said) is None


def test_a_command_stays_as_it_was_typed() -> None:
    assert understood("/edit Two\n  lines.") == "/edit Two\n  lines."


@pytest.mark.parametrize("template", MEANINGS)
def test_every_meaning_is_a_command(template: str) -> None:
    assert template.split()[0] in BY_NAME


@pytest.mark.parametrize(
    ("said", "near"),
    [
        ("aprove", "/approve"), ("rolback 1", "/rollback 1"), ("train the dragon", "/train"),
        ("trian 2 epochs quickly", "/train"), ("finnish", "/finish"),
        ("Who is the mayor of Tallisk?", "/try Who is the mayor of Tallisk?"),
        ("it should answer in one word", "/edit Answer in one word."),
        ("I want it to be brief", "/edit Be brief."),
        ("is it better to train weights", "/train"), ("xyzzy", None),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_asked_back_with_the_nearest(said: str, near: str | None) -> None:
    assert nearest(said) == near


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("/aprove", "There is no command /aprove; did you mean /approve?"),
        ("/approve maybe", "/approve takes nothing after it, and nothing was done"),
        ("/rollback", "/rollback takes N, as in: /rollback 1"), ("/xyzzy", "/help lists them"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_followed_says_what_can(line: str, fault: str) -> None:
    with pytest.raises(BadInput) as caught:
        parsed(line)
    assert fault in str(caught.value)


def test_a_command_is_known_by_its_other_names_and_in_capitals() -> None:
    assert parsed("/EXTEND rounds=+2") == (BY_NAME["/set"], "rounds=+2")
    assert all(command.name in HELP for command in COMMANDS)


def test_settings_and_counts_are_read_or_refused() -> None:
    assert settings("epochs=1 parts=system,demos", "/edit") == {"epochs": "1", "parts": ["system", "demos"]}
    with pytest.raises(BadInput, match="Settings are written as in: /train epochs=4"):
        settings("many", "/train epochs=4")
    assert count("two", "/run") == 2
    for wrong in ("0", "few"):
        with pytest.raises(BadInput, match="/run takes a number from 1 on"):
            count(wrong, "/run", least=1)


@pytest.mark.parametrize(
    "said", ["Why would you do that now?", "So, was that kept?", "How good is it?", "And what fails?"]
)
def test_a_question_asks_for_an_answer(said: str) -> None:
    assert asks(said)


@pytest.mark.parametrize(
    "said",
    ["Could you train it?", "What about one more round?", "How about training it?", "Train it.", "Go on, will you?"],
)
def test_a_wish_that_ends_in_a_question_mark_is_a_wish(said: str) -> None:
    assert not asks(said)


def test_help_is_asked_about_every_command_and_nothing_else() -> None:
    assert set(NAMES.split("|")) == {command.name[1:] for command in COMMANDS}
    assert understood("help it improve") is None
