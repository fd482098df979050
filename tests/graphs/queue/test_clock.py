"""The times of the clock at which queues end."""

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from agent.errors import BadInput
from graphs.queue.making import next_time


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("07:00", "2026-11-28T07:00"), ("23:30", "2026-11-27T23:30"), ("2026-12-24 06:15", "2026-12-24T06:15")],
)
def test_a_time_of_the_clock_is_the_next_one(text: str, wanted: str) -> None:
    evening = datetime(2026, 11, 27, 22, 0).astimezone()
    assert next_time(text, evening) == datetime.fromisoformat(wanted).astimezone()


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clocks here change as in Berlin."""
    with monkeypatch.context() as here:
        here.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("present", "text", "wanted"),
    [
        ("2026-03-29T01:00+01:00", "07:00", "2026-03-29T07:00+02:00"),
        ("2026-03-28T22:00+01:00", "07:00", "2026-03-29T07:00+02:00"),
        ("2026-10-25T01:00+02:00", "07:00", "2026-10-25T07:00+01:00"),
        ("2026-10-25T02:45+02:00", "02:30", "2026-10-25T02:30+01:00"),
        ("2026-10-25T04:45+01:00", "02:30", "2026-10-26T02:30+01:00"),
    ],
)
def test_a_time_in_a_night_when_the_clock_changes(berlin: None, present: str, text: str, wanted: str) -> None:
    assert next_time(text, datetime.fromisoformat(present)) == datetime.fromisoformat(wanted)


@pytest.mark.parametrize("text", ["seven", "2026-11-27 07:00", "25:00"])
def test_another_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--until"):
        next_time(text, datetime(2026, 11, 27, 22, 0).astimezone())


def test_a_time_that_has_just_passed_means_tomorrow_only_where_nobody_typed_it() -> None:
    present = datetime(2026, 11, 28, 1, 53, 9).astimezone()
    with pytest.raises(BadInput, match=r"--until 01:53 has just passed: it is 01:53 here.*'2026-11-29 01:53'"):
        next_time("01:53", present)
    tomorrow = datetime(2026, 11, 29, 1, 53).astimezone()
    assert next_time("01:53", present, typed=False) == tomorrow
    assert next_time("2026-11-29 01:53", present) == tomorrow
    assert next_time("00:50", present) == datetime(2026, 11, 29, 0, 50).astimezone(), "an hour ago is no slip"
    with pytest.raises(BadInput, match=r"^until 23:59 has just passed"):  # yesterday
        next_time("23:59", datetime(2026, 11, 28, 0, 10).astimezone(), "until")
