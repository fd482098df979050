"""What changes reaches whoever reads, once, and after a break from where they were."""

import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import anyio
import httpx
import pytest
import uvicorn

from agent.records.actions import TrainLora
from agent.records.events import (
    BaselineScored,
    DecisionMade,
    Event,
    InquiryMade,
    LimitsSet,
    Note,
    PlanAnswered,
    RoundJudged,
    RunFinished,
    RunStarted,
    RunStopped,
)
from agent.records.limits import Extension, Limits
from agent.records.looks import ClassifyFailures, Inquiry
from graphs.control.steering import Step
from memory.run.folder import RunFolder
from tests.fixtures.story import a_baseline, an_outcome, make_run, the_story
from tests.ui.page.conftest import Pages
from ui.page.app import make_app
from ui.page.place import Place
from ui.page.run.feed import MOST, latest_entries
from ui.page.run.stream import MOST_ROUNDS, Position, Reader

START = Position(0, 0)
PATIENCE = 300.0  # seconds; a test that waits so long fails


@pytest.fixture
def page(pages: Callable[..., Pages], story: RunFolder) -> Pages:
    return pages()


def reader(page: Pages, run: RunFolder, position: Position | None = None) -> Reader:
    """By default from where the page stood when it was opened."""
    here = position or Position(latest_entries(run)[1], len(run.rounds()))
    return Reader(run, Place(page.root, page.steers, page.keys), here)


def following(reading: Reader) -> str:
    return anyio.run(reading.next)


def test_a_reader_first_gets_what_stands_and_then_nothing_twice(page: Pages, story: RunFolder) -> None:
    reading = reader(page, story)
    first = following(reading)
    assert 'hx-target="#live"' in first and 'hx-target="#feed"' not in first and 'hx-target="#rounds"' not in first
    assert following(reading) == ""


def test_a_new_round_comes_with_feed_summary_and_rounds(pages: Callable[..., Pages], tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", rounds=3, finished=False)
    reading = reader(pages(), run)
    following(reading)
    run.append(the_story()[3])
    run.event(RoundJudged(row=the_story()[3]))
    text = following(reading)
    assert 'id="round-4"' in text and 'id="round-3"' not in text
    assert 'hx-target="#summary"' in text and "0.33 → 1.00" in text
    assert following(reading) == ""


def test_who_comes_back_gets_what_came_meanwhile_and_only_that(page: Pages, story: RunFolder) -> None:
    story.event(Note(text="before the break"))
    reading = reader(page, story, START)
    assert "before the break" in following(reading)
    story.event(Note(text="while away"))
    back = following(reader(page, story, Position.of(str(reading.position))))
    assert "while away" in back and "before the break" not in back and 'hx-target="#rounds"' not in back


def test_who_missed_many_rounds_gets_the_last(page: Pages, story: RunFolder) -> None:
    text = following(reader(page, story, Position(0, 0)))
    assert text.count('class="round ') == min(4, MOST_ROUNDS)


def test_a_line_that_is_being_written_waits_for_its_end(page: Pages, story: RunFolder) -> None:
    story.event(Note(text="whole"))
    with (story.path / "events.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-11-27T10:00:00+00:00", "kind": "note", "te')
    reading = reader(page, story, START)
    assert "whole" in following(reading)
    with (story.path / "events.jsonl").open("ab") as file:
        file.write(b'xt": "now ended"}\n')
    assert "now ended" in following(reading)


@pytest.mark.parametrize("wrong", ["", "x", "1", "-1-2", "1-2-3-4", "9" * 30 + "-1", None])
def test_a_position_that_cannot_be_read_is_none(wrong: str | None) -> None:
    assert Position.of(wrong) is None


def test_a_position_beyond_the_log_or_inside_a_line_does_no_harm(page: Pages, story: RunFolder) -> None:
    for text in ("alpha", "beta", "gamma"):
        story.event(Note(text=text))
    assert "gamma" not in following(reader(page, story, Position(10**9, 4)))
    inside = following(reader(page, story, Position(5, 4)))
    assert "alpha" not in inside and "beta" in inside and "gamma" in inside


def test_a_status_is_told_when_it_changes(page: Pages, story: RunFolder) -> None:
    steered, reading = page.steered(story), reader(page, story)
    following(reading)
    threading.Timer(
        0.02, lambda: steered.becomes(condition="working", step=Step(what="training", done=1, total=9))
    ).start()
    for _ in range(20):
        if text := following(reading):
            break
    assert "1 of 9" in text
    page.steers.working.clear()  # its process has ended, and says so
    steered.becomes(condition="stopped")
    assert "stopped" in "".join(following(reading) for _ in range(3))


def test_the_page_begins_with_the_last_entries_and_their_end(story: RunFolder) -> None:
    for number in range(MOST + 30):
        story.event(Note(text=f"note {number}"))
    entries, offset = latest_entries(story)
    assert len(entries) == MOST and entries[-1].event == Note(text=f"note {MOST + 29}")
    assert offset == (story.path / "events.jsonl").stat().st_size


def test_every_kind_of_event_has_words(page: Pages, story: RunFolder) -> None:
    limits = Limits(rounds=9, target=0.9)
    told: dict[str, tuple[Event, str]] = {
        "run": (RunStarted(name="valley-1", task="valley", model="m", policy="rules"), "Taken up by a process."),
        "baseline": (BaselineScored(row=a_baseline()), "The seed prompt earns"),
        "inquiry": (InquiryMade(number=1, inquiry=Inquiry(look=ClassifyFailures(), fault="too late")), "looked: "),
        "decision": (DecisionMade(number=1, decision=the_story()[0].decision), "Round 1: "),
        "answer": (PlanAnswered(number=1, answer="edit", move=TrainLora(epochs=2)), "is to be another: train 2 epochs"),
        "verdict": (RoundJudged(row=the_story()[1]), "taken back"),
        "note": (Note(text="Mind the gap."), "Mind the gap."),
        "limits": (LimitsSet(row=Extension(number=1, limits=limits, reopened=True)), "9 rounds, target 0.9. The run"),
        "stopped": (RunStopped(reason="The disk is full.", failed=True), "Stopped: The disk is full."),
        "finish": (RunFinished(outcome=an_outcome(the_story()[3])), "Finished. On sealed test rows"),
    }
    quiet = {"round-start", "progress"}
    assert set(told) | quiet == {kind.model_fields["kind"].default for kind in get_args(get_args(Event)[0])}
    for event, _ in told.values():
        story.event(event)
    text = following(reader(page, story, START))
    for _, words in told.values():
        assert words in text


# --- over HTTP -------------------------------------------------------------------------------------


@pytest.fixture
def served(page: Pages) -> Iterator[str]:
    """The page served for real; its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(page.root, page.steers, page.keys)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def messages(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Id and data of each message."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields.setdefault(name, []).append(value)
        elif "data" in fields:
            yield fields["id"][0], "\n".join(fields["data"])
            fields = {}


def test_messages_come_as_server_sent_events_and_go_on_from_the_last_id(
    served: str, page: Pages, story: RunFolder
) -> None:
    cookies = {page.keys.cookie: page.client.cookies[page.keys.cookie]}
    story.event(Note(text="first"))
    with httpx.Client(base_url=served, cookies=cookies, timeout=PATIENCE) as client:
        with client.stream("GET", "/runs/valley-1/events?from=0-4") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            id, data = next(messages(answer.iter_lines()))
            assert "first" in data
        story.event(Note(text="second"))
        with client.stream("GET", "/runs/valley-1/events?from=0-4", headers={"last-event-id": id}) as answer:
            _, data = next(messages(answer.iter_lines()))
    assert "second" in data and "first" not in data


def test_two_browsers_see_the_same(served: str, page: Pages, story: RunFolder) -> None:
    cookies = {page.keys.cookie: page.client.cookies[page.keys.cookie]}
    steered = page.steered(story)
    with (
        httpx.Client(base_url=served, cookies=cookies, timeout=PATIENCE) as client,
        client.stream("GET", "/runs/valley-1/events?from=0-4") as one,
        client.stream("GET", "/runs/valley-1/events?from=0-4") as other,
    ):
        readers = [messages(answer.iter_lines()) for answer in (one, other)]
        for reading in readers:
            next(reading)
        steered.becomes(condition="paused")
        told = [next(reading)[1] for reading in readers]
    assert told[0] == told[1] and "paused" in told[0]


def test_a_reader_holds_no_more_after_many_events(page: Pages, story: RunFolder) -> None:
    reading = reader(page, story, START)

    def read(count: int) -> None:
        for number in range(count):
            story.event(Note(text=f"note {number}"))
        while following(reading):
            pass

    read(400)  # caches fill
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    read(2000)
    grown = sum(line.size_diff for line in tracemalloc.take_snapshot().compare_to(before, "filename"))
    tracemalloc.stop()
    assert grown < 300_000, "2000 events of 90 bytes each stay in memory"


def test_the_server_ends_quietly_while_a_browser_follows(story: RunFolder) -> None:
    line = [sys.executable, "nesylora.py", "ui", "--no-open", "--port", "0", "--runs", str(story.path.parent)]
    with subprocess.Popen(line, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        link = [server.stdout.readline() for _ in range(3)][-1].strip()
        with httpx.Client(base_url=link.partition("/enter")[0], timeout=PATIENCE) as browser:
            browser.get(link)
            with browser.stream("GET", "/runs/valley-1/events?from=0-0") as events:
                assert events.status_code == 200 and next(events.iter_text())
                server.send_signal(signal.SIGTERM)
                _, said = server.communicate(timeout=PATIENCE)
    assert "Traceback" not in said and "Cancel" not in said
