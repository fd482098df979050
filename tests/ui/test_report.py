"""The report of a run: the page and its Markdown twin."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records.actions import EditPrompt, TrainLora
from agent.records.examples import Candidate, Demo, Example, Prompt, Retrieval
from agent.records.rounds import ConstantAnswer, Proposal, Round
from tests.fixtures.pages import EVIL, Visible, outside_fences, read
from tests.fixtures.story import (
    ADAPTER,
    SEED,
    SHORT,
    SHOWN,
    a_baseline,
    a_round,
    an_outcome,
    make_run,
    new_run,
    save_scores,
    the_story,
)
from ui.report.diff import compare, unified
from ui.report.markdown import escape, fence
from ui.report.write import write_report


def test_full_run_says_what_came_of_it_and_why(tmp_path: Path) -> None:
    _, words, twin = read(make_run(tmp_path))
    for text in (words, " ".join(twin.split())):
        assert "The target of 0.95 was reached" in text
        assert "The validation reward reached the target." in text
        assert "0.75 – 1.00" in text and "0.00 – 0.25" in text
        assert "p < 0.001" in text
        assert "demonstrations alone would take 4.0 nats a token away" in text
        assert "two demonstrations in the wanted form" in text
        assert "96 rows (refined), 4 epochs, 48 steps" in text
        assert "ANSWER: the copper bridge" in text
        assert "30 min" in words


def test_running_run_says_that_it_is_not_finished(tmp_path: Path) -> None:
    _, words, twin = read(make_run(tmp_path, rounds=2, finished=False))
    assert "This run is not finished. After 2 rounds and 1 min 20 s the validation reward stands at 0.04" in words
    assert "This run is not finished." in twin
    assert "Baseline against best" not in words + twin
    assert "best prompt so far" in words and "## The best prompt so far\n" in twin


def test_run_with_only_a_baseline(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.save_prompt(SEED)
    recalled = Proposal(prompt=SEED.id, note="from an earlier run", merit=0.21)
    run.append(a_baseline().model_copy(update={"recalled": (recalled,)}))
    _, words, twin = read(run)
    assert "from an earlier run 0.21" in words and "| from an earlier run | 0.21 |" in twin
    assert "Only the baseline is measured" in words and "Only the baseline is measured" in twin
    assert SEED.system in words and SEED.system in twin


def test_run_with_nothing(tmp_path: Path) -> None:
    page, words, twin = read(new_run(tmp_path))
    assert "Nothing is measured yet" in words and "Nothing is measured yet" in twin
    assert "<svg" not in page


def test_report_is_written_anew_as_the_run_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=1, finished=False)
    assert "Round 2" not in read(run)[1]
    run.append(the_story()[1])
    assert "Round 2" in read(run)[1]
    assert not [path for path in run.path.iterdir() if path.name.endswith(".tmp")]


def test_page_fetches_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    seen = Visible()
    seen.feed(write_report(run).read_text(encoding="utf-8"))
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in seen.tags}
    assert not [value for _, attrs in seen.tags for key, value in attrs.items() if key in ("src", "srcset")]
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in seen.tags)


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=3, finished=False, output=EVIL)
    evil = Prompt(system=EVIL, demos=(Demo(question=EVIL, answer=EVIL),))
    run.save_prompt(evil)
    candidate = Candidate(prompt=evil.id)
    save_scores(run, candidate, "validation", 12, "")
    run.append(a_round(4, EditPrompt(), Candidate(prompt=SHOWN.id), candidate, 0.33, 0.9, kept=True))
    page, words, twin = read(run)
    assert "<script" not in page and "<img" not in page
    assert "<script>alert('x')</script>" in words
    outside = outside_fences(twin)
    assert "<script" not in outside and "<img" not in outside
    assert "# not a heading" not in outside.splitlines() and "[a](" not in outside
    assert "# not a heading" in twin  # the prompt itself is there, whole, inside a fence


@given(st.text(max_size=200))
def test_no_text_breaks_out_of_its_fence(text: str) -> None:
    assert outside_fences(f"{fence(text)}\nafter") == "after"


@given(st.text(alphabet="|\n`<>&*_[]()#-+1. ax\\", max_size=60))
def test_escaped_text_stays_in_its_cell(text: str) -> None:
    line = escape(text)
    assert "\n" not in line
    bare = re.sub(r"(?<=[^\W_])_(?=[^\W_])", "", line)  # within a word, an underscore emphasises nothing
    assert not re.search(r"(?<!\\)(\\\\)*[|`*_\[\]]", bare.replace("\\\\", "")), line
    assert escape("edit_prompt, _told_ and a__b") == r"edit_prompt, \_told\_ and a\_\_b"
    assert not re.search(r"<[A-Za-z/!?]", line)
    assert not re.match(r"[-+#>]\s|#|>", line)


def test_discarded_rounds_are_marked(tmp_path: Path) -> None:
    page, _, twin = read(make_run(tmp_path))
    assert re.search(r'<g class="mark train_lora dropped"><title>round 2, LoRA, taken back: 0.04 → 0.00', page)
    assert re.search(r'<g class="mark train_lora kept"><title>round 4, LoRA, kept: 0.33 → 1.00', page)
    assert '<article class="round dropped" id="round-2">' in page
    assert "| 2 | ● LoRA | rules | taken back | 0.04 → 0.00 |" in twin


def test_proposals_say_on_how_many_rows_they_were_compared_and_which_was_chosen(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=1, finished=False)
    compared = [("the present prompt", 12), ("a good one", 12), ("a bad one", 4)]
    prompts = {"a good one": SHOWN.id}
    proposals = tuple(
        Proposal(prompt=prompts.get(note, SEED.id), note=note, merit=0.25, rows=rows) for note, rows in compared
    )
    refused = Proposal(prompt=SEED.id, note="refused: it gives a row away")
    run.append(round_with((*proposals, refused)))
    for text in read(run)[1:]:
        assert "refused: it gives a row away" in text
        assert "a bad one (dropped after 4 rows)" in text.replace("\\", "")
        assert "a good one (chosen)" in text.replace("\\", "") and text.count("one (chosen)") == 1
        assert "on 12 rows" in re.sub("<[^>]*>", "", text)
        assert text.count("dropped after") == 1  # and nothing of the kind of rounds that did not count rows


def round_with(proposals: tuple[Proposal, ...]) -> Round:
    row = a_round(2, EditPrompt(), Candidate(prompt=SHORT.id), Candidate(prompt=SHOWN.id), 0.04, 0.03, kept=False)
    return row.model_copy(update={"trial": row.trial.model_copy(update={"proposals": proposals})})


def test_diff_shows_what_changed(tmp_path: Path) -> None:
    page, _, twin = read(make_run(tmp_path))
    assert "<del>Be helpful </del><ins>Give the answer as ANSWER: </ins>" in page
    assert '<div class="demo added">' in page
    assert "-You answer questions about the valley. Be helpful" in twin
    assert "+A: ANSWER: Odile" in twin


def test_report_says_what_is_retrieved_for_each_question(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    retrieving = SHOWN.model_copy(update={"retrieval": Retrieval(k=4)})
    diff = compare(SHOWN, retrieving)
    assert [piece.change for piece in diff.retrieval] == ["added"]
    assert "+For each question: the 4 nearest train rows as few-shot examples" in unified(SHOWN, retrieving)
    fewer = retrieving.model_copy(update={"retrieval": Retrieval(k=2, floor=0.5)})
    assert {piece.change for piece in compare(retrieving, fewer).retrieval} == {"same", "added", "removed"}
    story, pair = the_story(), Candidate(prompt=run.save_prompt(retrieving))
    run = make_run(tmp_path / "retrieving", rounds=2, finished=False)
    run.save_prompt(retrieving)
    run.append(
        story[2].model_copy(update={"trial": story[2].trial.model_copy(update={"candidate": pair}), "best": pair})
    )
    _, words, twin = read(run)
    assert "retrieval For each question: the 4 nearest train rows as few-shot examples" in words
    assert "For each question: the 4 nearest train rows as few-shot examples" in twin
    assert "for each question, the 4 nearest train rows" in words


def test_diff_of_rewritten_text_is_not_confetti() -> None:
    before = Prompt(system="Say what you know of the weather.")
    after = Prompt(system="Reply with one number only.")
    assert [change for change, _ in compare(before, after).system] == ["removed", "added"]


words = st.lists(st.sampled_from(["a", "bee", "see\n", " ", "the"]), max_size=30).map(" ".join)


@given(words, words)
def test_diff_holds_both_texts(before: str, after: str) -> None:
    pieces = compare(Prompt(system=before), Prompt(system=after)).system
    assert "".join(text for change, text in pieces if change != "added") == before
    assert "".join(text for change, text in pieces if change != "removed") == after


def test_commands_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    pair = f"--prompt runs/valley-1/prompts/{SHOWN.id}.json --adapter runs/valley-1/adapters/{ADAPTER}"
    for text in read(run)[1:]:
        assert f"nesylora eval runs {pair}" in text  # where this run's task.yaml came from
        assert "nesylora chat valley-1" in text
        assert "nesylora report valley-1" in text
        assert "nesylora resume" not in text  # it has finished
    for text in read(new_run(tmp_path / "elsewhere"))[1:]:
        assert f"nesylora resume {tmp_path}/elsewhere/valley-1" in text


def test_question_stands_with_the_outputs_when_the_rows_are_given(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    row = Example(name="test:2", question="What spans the gorge?", answer="the copper bridge")
    page = write_report(run, [row]).read_text(encoding="utf-8")
    assert "What spans the gorge?" in page
    assert "What spans the gorge?" in (run.path / "report.md").read_text(encoding="utf-8")


def test_step_without_a_trial_and_lost_logs_leave_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=3, finished=False)
    for log in run.path.glob("adapters/*/training.json"):
        log.unlink()
    run.append(a_round(4, TrainLora(), Candidate(prompt=SHOWN.id), None, 0.33, 0.33, kept=False))
    page, words, _ = read(run)
    assert '<path class="cross"' in page
    assert "Round 4" in words


def test_500_rounds_stay_legible_and_small(tmp_path: Path) -> None:
    run = make_run(tmp_path, rounds=1, finished=False)
    stood, trial = Candidate(prompt=SHORT.id), Candidate(prompt=SHOWN.id)
    for number in range(2, 501):
        run.append(a_round(number, EditPrompt(), stood, trial, 0.04, 0.03, kept=number == 200))
    page, words, twin = read(run)
    assert len(page) < 400_000 and len(twin) < 60_000
    dots = re.search(r'<path class="dots edit_prompt" d="([^"]*)"', page)
    assert dots and dots[1].count("M") == 498
    assert page.count('<g class="mark edit_prompt kept">') == 2
    assert "2 of 500 rounds were kept" in words
    assert "12 of 500 rounds are shown in full" in words and "12 of 500 rounds" in twin
    numbers = {int(number) for number in re.findall(r'id="round-(\d+)"', page)}
    assert numbers == {1, 200, *range(491, 501)} == {int(n) for n in re.findall(r"### Round (\d+)", twin)}
    folded = page[page.index("All 500 rounds</summary>") :]
    assert len(re.findall(r'<tr class="(?:kept|dropped)">', folded)) == 500


def test_what_one_answer_to_all_rows_would_earn_stands_below_the_test_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    alike = ConstantAnswer(answer=EVIL, reward=0.27)
    run.append(an_outcome(the_story()[-1]).model_copy(update={"commonest": alike}))
    page, words, twin = read(run)
    assert "Always answering" in words and "would earn 0.27." in words
    assert (
        "<script" not in page and "<script" not in outside_fences(twin) and "would earn 0.27." in outside_fences(twin)
    )


def test_a_run_of_before_says_nothing_of_one_answer_to_all_rows(tmp_path: Path) -> None:
    _, words, twin = read(make_run(tmp_path))
    assert "lways answering" not in words + twin and "one answer to every row" not in words + twin
