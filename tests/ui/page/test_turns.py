"""What was said on the page stands there again: after a reload, in another browser, with another server."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import DiskFull
from agent.records.events import Note
from graphs.approval import APPROVE, Cost, Question, question
from memory.run.folder import RunFolder
from tests.ui.page.conftest import Pages
from tests.ui.page.test_stream import following, reader
from ui.page.run import talking
from ui.page.run.stream import Position
from ui.page.run.turns import turns_from

FAR = 10**9  # bytes: behind all events


@pytest.fixture
def page(pages: Callable[..., Pages], story: RunFolder) -> Pages:
    """A page whose run waits with a plan."""
    page = pages()
    asked = question(5, story.rounds()[-1].decision, Cost(epochs=4, training_rows=96, validation_answers=12))
    page.steered(story).becomes(condition="waiting", question=Question.model_validate(asked))
    return page


def say(page: Pages, words: str, **form: str) -> str:
    answer = page.client.post("/runs/valley-1/say", data={"said": words, **form})
    assert answer.status_code == 200, answer.text
    return answer.text


def feed(page: Pages) -> str:
    """As it stands in a browser that has just opened the run."""
    text = page.get("/runs/valley-1")
    return text[text.index('id="feed"') : text.index('id="talk"')]


def test_words_and_answers_stand_after_a_reload_and_in_another_browser_in_their_place(
    pages: Callable[..., Pages], page: Pages, story: RunFolder
) -> None:
    story.event(Note(text="before it"))
    answered = re.findall("<p.*</p>", say(page, "why <b>so</b>?"))
    assert len(answered) > 1
    story.event(Note(text="after it"))
    other = pages(page.root)  # another server over the same runs, which has heard nothing
    for browser in (page, other):
        shown = feed(browser)
        assert all(line in shown for line in answered) and "why &lt;b&gt;so&lt;/b&gt;?" in shown
        assert shown.index("before it") < shown.index("why &lt;b&gt;") < shown.index("after it")


def test_what_is_said_in_a_browser_reaches_one_that_is_open_and_one_that_comes_back_once(
    page: Pages, story: RunFolder
) -> None:
    watching = reader(page, story, Position(FAR, 4))
    following(watching)
    say(page, "lorem ipsum dolor")
    assert "lorem ipsum" in following(watching) and following(watching) == ""
    say(page, "dolor sit amet")
    back = following(reader(page, story, Position.of(str(watching.position))))
    assert "dolor sit amet" in back and "lorem ipsum" not in back


def test_a_page_from_before_words_were_kept_gets_them(page: Pages, story: RunFolder) -> None:
    say(page, "lorem ipsum dolor")
    assert "lorem ipsum" in following(reader(page, story, Position.of(f"{FAR}-4")))


def test_buttons_stand_as_long_as_their_question_and_answer_nothing_else(page: Pages, story: RunFolder) -> None:
    say(page, "rolback 1")
    shown = feed(page)
    assert "Did you mean /rollback 1?" in shown and 'value="yes">Yes</button>' in shown
    [to] = re.findall('name="to" value="(.*?)"', shown)
    talking._conversations.clear()  # as a restart of the server
    assert 'value="yes">Yes</button>' not in feed(page)
    plan = re.search(r'name="seen" value="(\w+)" form="talk"', page.get("/runs/valley-1"))
    assert plan and "not asked any more" in say(page, "yes", to=to, seen=plan[1])
    assert page.steered(story).asked == [], "a yes to another question must not approve the plan"
    say(page, "yes", seen=plan[1])
    assert page.steered(story).asked == [("answer", APPROVE)]


def test_a_question_stands_however_many_other_runs_are_talked_about(
    page: Pages, story: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talking, "MOST_TALKS", 2)
    talking._conversations.clear()
    say(page, "rolback 1")
    for number in range(4):
        copy = page.root / f"other-{number}"
        shutil.copytree(story.path, copy)
        page.get(f"/runs/{copy.name}")
    assert "Did you mean /rollback 1?" in feed(page) and 'value="yes">Yes</button>' in feed(page)
    assert len(talking._conversations) == 3, "the one that asks, and two that ask nothing"


def test_secrets_are_not_kept(page: Pages, story: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_GATE_PASSWORD", "tall ships at dawn")
    for words in ("use sk-abcdefghijklmnopqrstuvwx for it", "the gate opens by tall ships at dawn"):
        say(page, words)
    kept = (story.path / "talk.jsonl").read_text()
    assert "use [key] for it" in kept and "opens by [OUR_GATE_PASSWORD]" in kept
    assert "sk-abc" not in kept + feed(page) and "tall ships" not in kept + feed(page)


def test_what_is_damaged_or_still_being_written_is_left_out(page: Pages, story: RunFolder) -> None:
    say(page, "one two three four")
    with story.talk.open("ab") as file:
        file.write(b'{"time": "2026-11-27T10:00:00+00:00", "sa\xff}\n{"time": "2026-')
    turns, behind = turns_from(story, 0)
    assert [turn.said for turn in turns] == ["one two three four"] and "one two three" in feed(page)
    say(page, "five six seven eight")  # what a kill cut off is cut away
    assert [turn.said for turn in turns_from(story, behind)[0]] == ["five six seven eight"]


def test_a_full_disk_keeps_nothing_and_the_answer_is_shown(
    page: Pages, story: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, line: str, *, sync: bool) -> None:
        raise DiskFull(path, len(line))

    monkeypatch.setattr("ui.page.run.turns.append_line", full)
    text = say(page, "lorem ipsum dolor")
    assert 'hx-target="#feed"' in text and "I do not understand that" in text
