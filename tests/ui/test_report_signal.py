"""The report of the monitoring signal: what was promised, what came, and at what cost; each number once."""

import re
from pathlib import Path
from typing import Any

import pytest

from agent.policy.learned import Learned
from agent.records.actions import Decision, Rollback
from agent.records.rounds import Round, Spend
from agent.records.signal import Outlook, Signal
from memory.run.folder import RunFolder
from tests.fixtures.outlooks import CONFIG, a_briefing
from tests.fixtures.pages import read
from tests.fixtures.rounds import a_diagnosis
from tests.fixtures.story import a_baseline, an_outcome, make_run, the_story
from ui.report.signal import numbers_not_shown, states
from ui.report.write import write_report
from ui.wording import GLOSSARY, cost


def promising(root: Path) -> RunFolder:
    """The story with outlooks, drift and merit; the third round promises what the fourth has to keep."""
    run = make_run(root, rounds=2, finished=False)
    for row in the_story()[2:]:
        run.append(with_outlooks(row))
    return run


def with_outlooks(row: Round, **signal: Any) -> Round:
    outlooks = {
        "edit": Outlook(gain=0.21, spread=0.08, cost=2_210),
        "lora": Outlook(gain=0.34, spread=0.15, cost=27_648),
    }
    levers = {
        name: getattr(row.signal, name).model_copy(update={"outlook": outlook}) for name, outlook in outlooks.items()
    }
    seen = row.signal.model_copy(update={"floor": 0.06, "drift": 0.031, **levers, **signal})
    came = row.verdict.model_copy(update={"merit_gain": 0.28})
    return row.model_copy(update={"signal": seen, "verdict": came})


def test_promises_and_results_are_in_page_and_text(tmp_path: Path) -> None:
    page, words, twin = read(promising(tmp_path))
    for text in (words, twin):
        assert "What each lever promised, and what came of it" in text
        assert text.count("promises +0.21 ± 0.08 for 2k forward tokens") >= 2
        assert "+0.28 merit" in " ".join(text.split())
    promised = "+0.21 ± 0.08 for 2k forward tokens | 95 | +0.34 ± 0.15 for 28k forward tokens | 12.3"
    assert f"| 4 | {promised} | LoRA | +0.28 | 0.06 |" in twin
    assert "| noise floor, merit | 0.06 |" in twin and "| drift, nats a token | +0.03 |" in twin
    assert '<g class="promise train_lora pulled"><title>round 4' in page
    assert '<path class="signal drift"' in page


def test_a_rollback_keeps_no_promise(tmp_path: Path) -> None:
    run = promising(tmp_path)
    last = run.rounds()[-1]
    back = last.decision.model_copy(update={"move": Rollback(to_round=2)})
    run.append(last.model_copy(update={"number": last.number + 1, "decision": back}))
    _, _, twin = read(run)
    (line,) = (line for line in twin.splitlines() if line.startswith(f"| {last.number + 1} | +0.21"))
    assert line.split(" | ")[6] == "–", "what it undid was no gain of a lever"


def test_the_drift_of_the_final_weights_is_in_page_and_text(tmp_path: Path) -> None:
    run = promising(tmp_path)
    run.append(an_outcome(run.rounds()[-1]).model_copy(update={"drift": 0.42}))
    _, words, twin = read(run)
    for text in (words, twin):
        assert "against the bare model: +0.42 nats a token" in " ".join(text.split())
    assert "| +0.42 |" in twin, "the last pair's, in the table of all pairs"


def test_ledgers_without_outlooks_have_no_chart_of_promises(tmp_path: Path) -> None:
    page, words, twin = read(make_run(tmp_path))
    assert "What each lever promised" not in words + twin and 'class="promise' not in page
    assert '<path class="signal content"' in page and '<path class="signal drift"' not in page


def test_no_measured_number_is_shown_again_as_the_reason_of_the_switch() -> None:
    briefing = a_briefing(a_diagnosis(both=8))
    decision = Learned(CONFIG).decide(briefing)
    row = the_story()[0]
    row = row.model_copy(update={"signal": briefing.signal, "diagnosis": briefing.diagnosis, "decision": decision})
    assert set(numbers_not_shown(row)) == {"edit promise", "edit drawn", "LoRA promise", "LoRA drawn"}


def test_a_number_that_differs_from_the_measured_one_is_shown() -> None:
    row = the_story()[0]
    decision = Decision(move=row.decision.move, reason="", numbers={"prompt_gap": 1.5, "weight_gap": 1.88})
    assert numbers_not_shown(row.model_copy(update={"decision": decision})) == {"prompt gap": 1.5}


def test_numbers_under_the_names_of_earlier_versions_are_shown_once() -> None:
    briefing = a_briefing(a_diagnosis(both=8))
    decision = Learned(CONFIG).decide(briefing)
    former = {name.replace("forward tokens", "passes"): value for name, value in decision.numbers.items()}
    assert "LoRA passes" in former
    row = the_story()[0].model_copy(update={"signal": briefing.signal, "diagnosis": briefing.diagnosis})
    before, now = (
        row.model_copy(update={"decision": decision.model_copy(update={"numbers": numbers})})
        for numbers in (former, decision.numbers)
    )
    assert numbers_not_shown(before) == numbers_not_shown(now)


def test_chances_are_shown_where_the_classifier_gave_some(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=1, finished=False)
    row = the_story()[1]
    sure = {"content": 0.1, "style": 0.7, "both": 0.2}
    probed = tuple(diagnosed.model_copy(update={"chances": sure}) for diagnosed in row.diagnosis.examples)
    run.append(row.model_copy(update={"diagnosis": row.diagnosis.model_copy(update={"examples": probed})}))
    _, words, twin = read(run)
    assert words.count("a probed row's chance of content, style, both 10%, 70%, 20%") == 1
    assert twin.count("| a probed row's chance of content, style, both | 10%, 70%, 20% |") == 1


@pytest.mark.parametrize(
    ("by", "sentence"),
    [("rewards", "the two rewards alone"), ("rules", "rules over the probe"), ("model", "the classifier")],
)
def test_who_sorted_the_failing_rows_is_in_page_and_text(tmp_path: Path, by: str, sentence: str) -> None:
    run = make_run(tmp_path, rounds=0, finished=False)
    old, row = the_story()[:2]
    run.append(Round.model_validate(old.model_dump(exclude={"diagnosis": {"by"}})))
    run.append(row.model_copy(update={"diagnosis": row.diagnosis.model_copy(update={"by": by})}))
    _, words, twin = read(run)
    sorters = re.findall(r"\| sorted by \| (.+) \|", twin)
    assert sorters == ["rules over the probe", sentence]  # a ledger that does not say: rules
    assert [words.count(f"sorted by {sorter}") for sorter in sorters] == [sorters.count(sorter) for sorter in sorters]


def test_nobody_sorted_what_was_not_probed(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=0, finished=False)
    row = the_story()[0]
    run.append(row.model_copy(update={"diagnosis": row.diagnosis.model_copy(update={"examples": ()})}))
    _, words, twin = read(run)
    assert "sorted by" not in words + twin


def test_costs_are_given_in_forward_tokens_and_in_time(tmp_path: Path) -> None:
    _, words, twin = read(make_run(tmp_path))
    assert "cost 1 min 15 s, 28k forward tokens, 9,216 tokens trained" in words
    assert "1 min 15 s, 28k forward tokens, 9,216 tokens trained |" in twin
    assert re.search(r"1 min 15 s 28k 9,216", words)  # in the table of rounds
    assert cost(Spend(seconds=3)) == "3.0 s"  # where nothing was counted


def test_terms_that_the_page_explains_are_in_its_list_of_words(tmp_path: Path) -> None:
    page = write_report(promising(tmp_path)).read_text(encoding="utf-8")
    assert {"outlook", "noise floor", "drift", "forward tokens", "merit"} <= set(re.findall(r"<dt>([^<]*)</dt>", page))
    for term in ("outlook", "noise floor", "drift", "forward tokens"):
        assert f'<abbr title="{GLOSSARY[term]}">{term}</abbr>' in page


def test_last_state_is_of_the_scores_that_its_reward_is_the_mean_of(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    story = the_story()
    scores = list(run.load(story[-1].best, "validation").scores.values())
    last = states(a_baseline(), story, scores)[-1]
    assert (last.round, last.reward, last.content, last.style, last.noise) == (4, 1.0, 1.0, 1.0, 0.0)
    assert states(a_baseline(), story, scores, drift=0.5)[-1].drift == 0.5
    others = states(a_baseline(), story[:3], scores)[-1]
    assert others.reward == 0.33 and others.content != others.content  # not known


def test_first_state_is_what_the_first_round_saw() -> None:
    seen: Signal = the_story()[0].signal
    first = states(a_baseline(), the_story(), [])[0]
    assert (first.round, first.reward, first.content, first.noise) == (0, seen.reward, seen.content, seen.noise)
