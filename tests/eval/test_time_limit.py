"""Scorers of the user's own that do not end: given up on an answer, and then altogether, so that a run ends in time."""

import re
import threading
import time
from collections.abc import Callable

import pytest

from agent.errors import ExtensionFailed
from eval.scorers import patterns, time_limit
from eval.scorers.patterns import Pattern, TooSlow
from eval.scorers.time_limit import TimeLimit


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "LIMIT", 0.2)


def endless() -> str:
    while True:
        time.sleep(0.001)


def stubborn() -> str:
    """Catches what is thrown at it, once."""
    try:
        return endless()
    except BaseException:
        return endless()


def searching() -> str:
    """Python's own regular expressions, which cannot be given a limit."""
    return str(re.search("(x+x+)+y", "x" * 60))


def in_thread(call: Callable[[], object]) -> None:
    """Where a run works while a terminal or a page is in front of it."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except TooSlow as error:
            raised.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    if raised:
        raise raised[0]


@pytest.mark.parametrize("call", [endless, stubborn, searching])
def test_a_call_without_end_is_given_up(call: Callable[[], str]) -> None:
    with pytest.raises(TooSlow, match=r"The content scorer 'mine' was given up on this answer after 0\.2 seconds"):
        TimeLimit("content scorer 'mine'")(call)


def test_so_is_one_in_a_thread() -> None:
    with pytest.raises(TooSlow, match="given up"):
        in_thread(lambda: TimeLimit("content scorer 'mine'")(endless))


def test_what_ends_in_time_gives_and_raises_what_it_did() -> None:
    limited = TimeLimit("content scorer 'mine'")
    for way in (lambda call: call(), in_thread):
        way(lambda: limited(lambda: 3) == 3 or pytest.fail("the value is lost"))
    with pytest.raises(ZeroDivisionError):
        limited(lambda: 1 // 0)


def test_a_scorer_that_is_given_up_again_and_again_ends_the_run() -> None:
    limited = TimeLimit("style scorer 'mine'")
    for _ in range(2):
        with pytest.raises(TooSlow):
            limited(endless)
    assert limited(lambda: "") == ""
    for _ in range(2):
        with pytest.raises(TooSlow):
            limited(endless)
    with pytest.raises(ExtensionFailed, match="The style scorer 'mine' was given up on 3 answers in a row"):
        limited(endless)


def test_a_pattern_that_was_given_up_on_many_answers_gets_less_time_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "PATIENT", 2)
    monkeypatch.setattr(patterns, "LIMIT", 0.2)
    pattern, said = Pattern("^(x+x+)+y$"), []
    for number in range(3):
        with pytest.raises(TooSlow) as error:
            pattern.matches("x" * (5000 + number))
        said.append(str(error.value))
    assert ["after 0.2 seconds" in text for text in said] == [True, True, False] and "after 0.05 seconds" in said[2]
