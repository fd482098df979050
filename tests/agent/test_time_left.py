"""How long work still takes, as every face says it."""

from agent.time_left import TimeLeft


def test_the_time_before_the_first_report_is_no_pace() -> None:
    now = [100.0]
    left = TimeLeft(lambda: now[0])
    assert left.of("training", 1, 11) is None, "step 1 took a time that nobody measured"
    now[0] += 4
    assert left.of("training", 3, 11) == 16
    now[0] += 1
    assert left.of("answering", 0, 10) is None and left.of("answering", 0, 10) is None
    now[0] += 2
    assert left.of("answering", 10, 10) == 0
    assert left.of("answering", 4, 10) is None, "the same work anew"
    now[0] += 2
    assert left.of("answering", 6, 10) == 4
    assert left.of("answering", 12, 10) is None


def test_work_of_the_same_name_that_begins_further_on_is_timed_anew() -> None:
    now = [0.0]
    left = TimeLeft(lambda: now[0])
    for done, total in ((0, 12), (12, 12), (13, 32)):
        assert left.of("answering", done, total) in (None, 0)
        now[0] += 1000
    now[0] -= 990
    assert left.of("answering", 14, 32) == 180
