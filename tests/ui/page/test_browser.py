"""The page in Chromium, with worker processes on a tiny model: what a user does with mouse and keyboard."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import BadInput, Busy
from agent.records.events import Note
from graphs.approval import APPROVE
from graphs.context import new_run
from graphs.control.client import live
from graphs.session import open_session
from memory.embedder import is_installed
from memory.run.folder import RunFolder, runs
from tests.fixtures.learnable import LEARNABLE
from tests.fixtures.story import make_run
from tests.ui.page.browser import ROOT, Served, chromium, serious
from tests.ui.page.test_prompt_pages import entry
from tests.ui.page.test_start import some_csv

if TYPE_CHECKING:
    from playwright.sync_api import Page

LONG: dict[str, Any] = {"epochs": 20, "rank": 4, "batch_size": 1, "enough": 0, "replay": 0}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A runs folder; whatever works on its runs is ended."""
    folder = tmp_path / "runs"
    folder.mkdir()
    yield folder
    for run in runs(folder):
        if (remote := live(run)) and (pid := remote.status().pid):
            with suppress(ProcessLookupError):  # it has ended just now
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    server = Served(root)
    yield server
    server.kill()


@pytest.fixture
def page(served: Served) -> Iterator["Page"]:
    """A browser that is logged in. What its console says of faults fails the test."""
    with chromium() as browser:
        faults: list[str] = []
        browser.on("pageerror", lambda error: faults.append(str(error)))
        browser.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        browser.goto(served.link)
        yield browser
        assert faults == []


def text_of(page: "Page", selector: str) -> str:
    return " ".join(page.locator(selector).inner_text().split())


def wait_for(page: "Page", words: str, selector: str = "main") -> None:
    """Until the words stand there, small or in capitals."""
    page.wait_for_function(
        "([where, words]) => document.querySelector(where)?.innerText.toLowerCase().includes(words)",
        arg=[selector, words.lower()],
    )


def test_rows_are_uploaded_tried_and_adapted_to_with_every_step_approved(
    page: "Page", served: Served, root: Path, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    rows = tmp_path / "mayors.csv"
    rows.write_bytes(some_csv(60))
    page.get_by_role("link", name="Start the first one").click()
    page.get_by_label("File of rows").set_input_files(rows)
    page.get_by_role("button", name="Propose a task").click()
    wait_for(page, "60 rows of mayors.csv")
    assert serious(page) == []
    page.locator("#draft [name=model]").fill(str(tiny_model("llama")))
    page.locator("#draft [name=question]").select_option("asked")
    page.locator("#draft [name=answer]").select_option("wanted")
    page.locator("#draft [name=rounds]").fill("1")
    page.get_by_role("button", name="Propose again").click()
    page.wait_for_function("() => document.querySelector('#yaml')?.value.includes('rounds: 1')")
    page.get_by_role("button", name="Try five rows").click()
    wait_for(page, "the seed prompt on train rows", "#attempt")
    page.locator("#draft").get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile("/runs/mayors"))
    page.locator(".question").get_by_role("button", name="Approve").click()
    page.wait_for_selector("#round-1", state="attached")
    wait_for(page, "waits for you", "#live")
    wait_for(page, "Round 2 waits for you", "#question")  # the stop: its only round is used up
    assert "opens the sealed test rows" in text_of(page, "#question")
    page.get_by_role("button", name="Approve").click()
    wait_for(page, "finished", "#live")
    wait_for(page, "sealed test row", "#summary")
    [run] = runs(root)
    assert run.outcome() is not None and len(run.rounds()) == 1


def test_a_run_is_watched_through_a_reload_and_a_new_server_paused_rolled_back_and_asked(
    page: "Page", served: Served, root: Path, tiny_task: Callable[..., Path]
) -> None:
    run = new_run(tiny_task(**LEARNABLE | {"policy": "lora-only", "lora": LONG, "target": 1.0}), (), root, "tiny")
    page.goto(f"{served.address}/runs/tiny")
    page.get_by_label("A question of your own").fill("Who is the mayor of Benn?")
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_for(page, "Nobody works on tiny now", ".ask")  # beside the question, not at the page's top
    assert text_of(page, "#said") == ""
    page.get_by_role("button", name="Resume").click()
    wait_for(page, "Round 1 waits for you", "#question")
    page.get_by_role("button", name="Approve").click()
    page.wait_for_selector("progress", state="attached")
    page.reload()
    page.wait_for_selector("progress", state="attached")
    wait_for(page, "Round 1 is approved.", "#feed")
    served.kill()
    page.wait_for_selector("#offline", state="visible")
    pid = live(run).status().pid  # type: ignore[union-attr]
    again = Served(root, served.port)
    try:
        page.wait_for_selector("#offline", state="hidden")
        page.wait_for_selector("#round-1", state="attached")  # without a reload: the page went on by itself
        wait_for(page, "Round 2 waits for you", "#question")
        remote = live(run)
        assert remote and remote.status().pid == pid and len(run.rounds()) == 1
        assert len(re.findall("Taken up by a process", text_of(page, "#feed"))) == 1
        page.get_by_label("A question of your own").fill("Who is the mayor of Benn?")
        page.get_by_role("button", name="Ask", exact=True).click()
        page.wait_for_selector("#tried .output")
        page.locator("details.round summary").first.click()
        page.get_by_text("Go back to before round 1").click()
        wait_for(page, "This is a round of its own", "#rounds")
        assert len(run.rounds()) == 1  # nothing is done before it is confirmed
        page.get_by_role("button", name="Go back", exact=True).click()
        wait_for(page, "went back, as asked", "#rounds")
        assert run.rounds()[1].decision.move.action == "rollback"
        page.get_by_text("Finish", exact=True).click()
        page.get_by_role("button", name="Open the test rows").click()
        wait_for(page, "finished", "#live")
    finally:
        again.kill()


def test_two_browsers_and_a_terminal_see_and_steer_the_same_run(
    page: "Page", served: Served, root: Path, tiny_task: Callable[..., Path]
) -> None:
    run = new_run(tiny_task(**LEARNABLE | {"policy": "lora-only", "target": 1.0}), (), root, "tiny")
    page.goto(f"{served.address}/runs/tiny")
    page.get_by_role("button", name="Resume").click()
    wait_for(page, "Round 1 waits for you", "#question")
    context = page.context.browser.new_context(storage_state=page.context.storage_state())  # type: ignore[union-attr]
    other = context.new_page()
    other.goto(f"{served.address}/runs/tiny")
    wait_for(other, "Round 1 waits for you", "#question")
    other.get_by_role("button", name="Approve").click()
    for browser in (page, other):
        wait_for(browser, "Round 2 waits for you", "#question")
        wait_for(browser, "Round 1 is approved.", "#feed")
    page.get_by_label("Say something to the run").fill("rolback 0")
    page.keyboard.press("Enter")
    for browser in (page, other):
        wait_for(browser, "Did you mean /rollback 0?", "#feed")
    page.reload()
    wait_for(page, "Did you mean /rollback 0?", "#feed")
    page.locator("#feed").get_by_role("button", name="No").click()
    for browser in (page, other):
        wait_for(browser, "Nothing was done.", "#feed")
        assert text_of(browser, "#feed").count("Did you mean") == 1
        assert browser.locator("#feed button:visible").count() == 0
    chat = [sys.executable, "nesylora.py", "chat", "tiny", "--runs", str(root)]
    terminal = subprocess.run(chat, cwd=ROOT, input="status\n/quit\n", text=True, capture_output=True, check=True)
    assert "Round 2" in terminal.stdout
    remote = live(run)
    assert remote is not None
    with pytest.raises(BadInput, match="question of round 1 has been answered"):
        remote.answer(APPROVE, number=1)
    with pytest.raises(Busy, match="tiny"), open_session(run):
        pass
    assert len(run.rounds()) == 1


def test_the_plan_is_changed_by_keyboard_alone(
    page: "Page", served: Served, root: Path, tiny_task: Callable[..., Path]
) -> None:
    run = new_run(tiny_task(**LEARNABLE | {"policy": "lora-only", "target": 1.0}), (), root, "tiny")
    page.goto(f"{served.address}/runs/tiny")
    page.get_by_role("button", name="Resume").focus()
    page.keyboard.press("Enter")
    wait_for(page, "Round 1 waits for you", "#question")
    page.get_by_text("Change", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_label("epochs").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("1")
    page.get_by_label("epochs").press("Enter")
    wait_for(page, "Round 2 waits for you", "#question")
    assert run.rounds()[0].decision.move.model_dump()["epochs"] == 1
    assert page.evaluate("document.activeElement.tagName") in ("BODY", "MAIN", "BUTTON", "INPUT")


@pytest.mark.skipif(not is_installed(), reason="the embedder is not installed")
def test_prompts_are_searched(page: "Page", served: Served, root: Path) -> None:
    run = make_run(root)
    for system in ("Translate the sentence into French.", "Add the two numbers."):
        run.keep(entry(system, kept=True))
    page.get_by_role("link", name="Prompts").click()
    page.get_by_label("What is it about?").fill("arithmetic")
    page.keyboard.press("Enter")
    wait_for(page, "2 of 2 prompts", "#found")
    found = text_of(page, "#found")
    assert found.index("Add the two numbers.") < found.index("Translate")
    assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    page: "Page", served: Served, root: Path, width: int, scheme: Any
) -> None:
    task = make_run(root, finished=width == 400).task_file
    task.write_text(task.read_text().replace("minutes: 30.0", "minutes: 605.0"))  # a long word in a narrow column
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 860})
    for path in ("/", "/runs/valley-1", "/new", "/prompts", "/api"):
        page.goto(served.address + path)
        if path.startswith("/runs/"):
            page.locator("details.round summary").first.click()
            for part in ("#charts figure", "#sides select", "#examples .example"):
                page.locator(part.split()[0]).scroll_into_view_if_needed()
                page.wait_for_selector(part)
        assert serious(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_long_lists_stay_short_in_the_browser(page: "Page", served: Served, root: Path) -> None:
    run = make_run(root, finished=False)
    page.goto(f"{served.address}/runs/valley-1")
    for number in range(400):
        run.event(Note(text=f"note {number}"))
    wait_for(page, "note 399", "#feed")
    assert page.locator("#feed li").count() <= 120


def test_an_event_is_on_the_page_within_a_third_of_a_second(page: "Page", served: Served, root: Path) -> None:
    """The middle of several: no single one is held to a clock on a busy machine."""
    run = make_run(root, finished=False)
    page.goto(f"{served.address}/runs/valley-1")
    wait_for(page, "stopped", "#live")
    time.sleep(1)
    late = []
    for number in range(9):
        began = time.perf_counter()
        run.event(Note(text=f"now {number}"))
        wait_for(page, f"now {number}", "#feed")
        late.append(time.perf_counter() - began)
        time.sleep(0.3)
    print(json.dumps([round(seconds, 3) for seconds in sorted(late)]))
    assert isinstance(run, RunFolder) and len(late) == 9
