"""What is read first of a run: its verdict, what was kept by its gain, what went wrong, and dead ends."""

import re
from pathlib import Path

import pytest

from agent.records.actions import Rollback, TrainLora
from agent.records.evaluation import ExampleScore
from agent.records.events import LimitsSet, Note, RunStarted, RunStopped
from agent.records.limits import Limits
from agent.records.rounds import ConstantAnswer
from memory.run.folder import RunFolder
from tests.fixtures.pages import read
from tests.fixtures.story import a_round, an_outcome, make_run
from ui.report.model import OutputPair, in_turn
from ui.report.morning import dead_ends, kept_by_gain, troubles
from ui.report.sections import read_sections


def started(run: RunFolder) -> RunStarted:
    return RunStarted(name=run.name, task="valley", model="tiny", policy="rules", folder=str(run.path))


def test_the_first_screen_has_verdict_interval_noise_drift_and_the_commonest_answer(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    commonest = ConstantAnswer(answer="the copper bridge", reward=0.06)
    run.append(an_outcome(run.rounds()[-1]).model_copy(update={"commonest": commonest, "drift": 0.12}))
    page, words, _ = read(run)
    first = words[: words.index("What was kept, by its gain")]
    for said in ("target reached", "0.08 → 0.92", "Why it stopped:", "0.75 – 1.00", "± 0.", "+0.12", "0.06"):
        assert said in first, said
    assert page.index("<svg") < page.index("What was kept, by its gain")


@pytest.mark.parametrize(
    ("answered", "most", "said"),
    [
        (0.06, None, 'Always answering "no" would earn 0.06.'),
        (0.5, 0.8, "another single answer, 0.80. That is within the best pair's interval."),
        (0.5, 0.92, "another single answer, 0.92. The best pair does no better than that."),
        (0.95, None, "would earn 0.95. The best pair does no better than that."),
    ],
)
def test_a_result_that_one_answer_to_all_rows_would_have_too_is_called_that(
    answered: float, most: float | None, said: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, finished=False)
    commonest = ConstantAnswer(answer="no", reward=answered, most=most)
    run.append(an_outcome(run.rounds()[-1]).model_copy(update={"commonest": commonest}))
    _, words, twin = read(run)
    for text in (words, twin):
        assert said in text
        assert ("One answer to all test rows would earn as much." in text) == ("does no better" in said)
        assert ("would earn 0.80, which is within this result's interval." in text) == ("is within" in said)


def test_what_was_undone_is_not_among_what_was_kept(tmp_path: Path) -> None:
    def kept(run: RunFolder) -> list[int]:
        return [
            section.row.number
            for section in kept_by_gain(read_sections(run, run.baseline(), run.rounds()), run.rounds())
        ]

    run = make_run(tmp_path, finished=False)
    _, _, third, tuned = run.rounds()
    undone = a_round(5, Rollback(to_round=3), tuned.best, third.best, 1.0, 0.33, kept=True)
    run.append(undone)
    assert kept(run) == [3, 1]
    assert dead_ends(run.rounds())[0] == tuned, "what was undone is read there, too"
    back = a_round(7, Rollback(to_round=0), tuned.best, third.best, 1.0, 0.33, kept=False)
    assert dead_ends([*run.rounds(), back])[0] == back, "as is a way back that was taken back"
    run.append(a_round(6, Rollback(to_round=4), third.best, tuned.best, 0.33, 1.0, kept=True))
    assert kept(run) == [4, 3, 1], "undone once more, it stands again"


def test_a_long_run_that_went_far_back_shows_what_it_went_back_to(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    *_, third, tuned = run.rounds()
    for number in range(5, 80):
        run.append(a_round(number, TrainLora(), tuned.best, tuned.best, 1.0, 1.0, kept=True))
    run.append(a_round(80, Rollback(to_round=3), tuned.best, third.best, 1.0, 0.33, kept=True))
    sections = read_sections(run, run.baseline(), run.rounds())
    assert [section.row.number for section in kept_by_gain(sections, run.rounds())] == [3, 1]
    assert len(dead_ends(run.rounds())) == 20


def test_examples_show_what_changed_and_what_is_still_wrong_in_turn() -> None:
    def pair(row: int, before: float, after: float) -> OutputPair:
        scores = [ExampleScore(example=f"test:{row}", output="", content=c, style=1) for c in (before, after)]
        return OutputPair(scores[0], scores[1], None)

    pairs = [pair(row, 0, 1) for row in range(20)] + [pair(row, 0, 0) for row in range(20, 22)]
    assert [shown.after.example for shown in in_turn(pairs)[:5]] == ["test:0", "test:20", "test:1", "test:21", "test:2"]
    assert len(in_turn(pairs)) == 12


def test_what_was_kept_comes_by_its_gain_with_reason_and_diff_and_dead_ends_after_it(tmp_path: Path) -> None:
    page, words, twin = read(make_run(tmp_path))
    kept = page[page.index("What was kept, by its gain") : page.index("Examples, before and after")]
    assert re.findall(r'href="#round-(\d)"', kept) == ["4", "3", "1"]
    assert "Words have done what they can" in kept and '<div class="diff">' in kept
    order = ["What was kept, by its gain", "Examples, before", "Spend", "Dead ends", "Go on from here", "Rounds"]
    for text in (words, twin):
        places = [text.index(heading) for heading in order]
        assert places == sorted(places)
    dead = words[words.index("Dead ends") : words.index("Go on from here")]
    assert "No gain: the pair before it stands." in dead and "LoRA" in dead


def test_what_went_wrong_is_told_with_what_was_done(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    assert troubles(run, run.rounds()) == []
    for event in (
        started(run),
        Note(text="Warning: two rows are the same."),
        Note(text="Waited 40 s for the LLM."),
        started(run),  # the process before was killed
        RunStopped(reason="The disk is full.", failed=True),
        started(run),
        RunStopped(reason="The user stopped it."),
    ):
        run.event(event)
    found = troubles(run, run.rounds())
    assert [trouble.what for trouble in found] == [
        "two rows are the same.",
        "A process ended without a word (killed, out of memory, or by a second signal).",
        "The disk is full.",
    ]
    assert re.fullmatch(r"after \d\d:\d\d", found[1].when)
    assert "It went on at" in found[1].then and "It went on at" in found[2].then
    _, words, twin = read(run)
    assert "The disk is full." in words and "The disk is full." in twin
    assert "1 remark of the run Waited 40 s for the LLM." in words
    run.event(LimitsSet(row=run.extend(Limits(rounds=9, target=0.95), by="user")))
    for text in read(run)[1:]:
        assert re.search(r"Limits set by the user at \d\d:\d\d: 9 rounds, target 0\.95", text)
