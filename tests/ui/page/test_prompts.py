"""The prompt memory on the page."""

from collections.abc import Callable

import pytest

from agent.records.examples import Prompt
from memory.embedder import is_installed
from memory.prompts import Entry
from tests.fixtures.story import make_run
from tests.ui.page.conftest import Pages

pytestmark = pytest.mark.skipif(not is_installed(), reason="the embedder is not installed")


def entry(system: str, *, kept: bool) -> Entry:
    return Entry(
        prompt=Prompt(system=system), task="valley", profile="", model="m", reward=0.8, gain=0.1, kept=kept, round=1,
        run="valley-1",
    )  # fmt: skip


def test_prompts_are_found_by_meaning_and_rebuilt_from_the_runs(pages: Callable[..., Pages]) -> None:
    page = pages()
    run = make_run(page.root)
    for system, kept in (("Translate the sentence into French.", True), ("Add the two numbers.", False)):
        run.keep(entry(system, kept=kept))
    found = page.get("/prompts?about=arithmetic sums&part=true")
    assert found.index("Add the two numbers.") < found.index("Translate the sentence")
    assert "2 of 2 prompts" in found
    only = page.get("/prompts?about=arithmetic sums&kept=true")
    assert "Translate" in only and "Add the two" not in only and "<html" in only


def test_an_empty_memory_says_so(pages: Callable[..., Pages]) -> None:
    assert "Nothing was found; the memory holds 0 prompts." in pages().get("/prompts?about=anything&part=true")
