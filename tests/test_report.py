"""The report of a run, its charts and the live view, on run folders of realistic records."""

import io
import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.records import (
    Baseline,
    Candidate,
    Decision,
    Demo,
    Diagnosis,
    EditPrompt,
    Evaluation,
    Example,
    ExampleDiagnosis,
    ExampleScore,
    LeverSignal,
    Move,
    Outcome,
    Prompt,
    Proposal,
    Round,
    Signal,
    Spend,
    Split,
    SplitResult,
    TrainLora,
    Trial,
    Verdict,
)
from memory.ledger import RunFolder
from ui import charts
from ui.diff import compare
from ui.live import LiveView
from ui.markdown import escape, fence
from ui.report import write_report

SEED = Prompt(system="You answer questions about the valley. Be helpful and explain what you know.")
SHORT = Prompt(system="You answer questions about the valley. Give the answer as ANSWER: and nothing else.")
SHOWN = Prompt(
    system=SHORT.system,
    demos=(
        Demo(question="Who keeps the mill?", answer="ANSWER: Odile"),
        Demo(question="What is sown?", answer="ANSWER: rye"),
    ),
)
ADAPTER = "a1b2c3d4e5f6"
LOSER = "0f0f0f0f0f0f"
FACTS = ("Brannoc", "the copper bridge", "Ysolde Marr", "1687", "three", "the Tarn ferry", "slate", "Pell", "juniper",
         "the goat fair", "Hesper", "salt")  # fmt: skip


def make_run(root: Path, *, rounds: int = 4, finished: bool = True, output: str = "") -> RunFolder:
    """A run that edits twice, trains in vain, trains again and arrives; `output` is the first output of the seed."""
    run = new_run(root)
    for prompt in (SEED, SHORT, SHOWN):
        run.save_prompt(prompt)
    for split in ("validation", "test"):
        save_scores(run, Candidate(prompt=SEED.id), split, 0, output)
        save_scores(run, Candidate(prompt=SHOWN.id, adapter=ADAPTER), split, 12, "")
    run.append(a_baseline())
    story = the_story()[:rounds]
    for adapter in (ADAPTER, LOSER):
        save_training(run, adapter)
    for row in story:
        run.append(row)
    if finished:
        run.append(an_outcome(story[-1]))
    return run


def new_run(root: Path) -> RunFolder:
    task = {"name": "valley", "model": "smollm2-135m", "policy": "rules", "target": 0.95, "seed": 0}
    task["budget"] = {"rounds": 6, "minutes": 30.0, "train_tokens": None, "usd": None}
    return RunFolder.create(root, "valley", yaml.safe_dump(task), source=root, digest="0" * 12, name="valley-1")


def save_scores(run: RunFolder, candidate: Candidate, split: Split, right: int, first: str) -> None:
    scores = []
    for line, fact in enumerate(FACTS, 1):
        text = f"ANSWER: {fact}" if line <= right else f"I believe that in the valley it may well be {fact[::-1]}."
        faults = () if line <= right else ("The output does not begin with ANSWER:",)
        text = first if first and line == 1 else text
        score = ExampleScore(
            example=f"{split}:{line}", output=text, content=line <= right, style=line <= right, faults=faults
        )
        scores.append(score)
    run.save(Evaluation(candidate=candidate, split=split, scores=tuple(scores)))


def save_training(run: RunFolder, adapter: str) -> None:
    losses = [3.2 * math.exp(-step / 18) + 0.12 + 0.25 * math.sin(step * 1.7) ** 2 for step in range(48)]
    steps = [{"loss": loss, "grad_norm": 0.4 + loss * 0.7, "epoch": i // 12} for i, loss in enumerate(losses)]
    log: dict[str, object] = {
        "parent": None,
        "rows": "refined",
        "row_count": 96,
        "epochs": 4,
        "learning_rate": 1e-3,
        "rank": 16,
        "seed": 0,
    }
    log |= {"steps": steps, "epoch_losses": [sum(losses[i : i + 12]) / 12 for i in range(0, 48, 12)], "tokens": 9216}
    folder = run.adapter_folder(adapter)
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(log | {"seconds": 75.2}))


def a_baseline() -> Baseline:
    seed = Candidate(prompt=SEED.id)
    note = "The seed prompt on 12 validation rows; memory knew no prompt of a near task."
    return Baseline(
        seed=seed, seed_reward=0.0, best=seed, reward=0.0, content=0.08, style=0.0, note=note,
        spend=Spend(seconds=8.1, generated_tokens=410),
    )  # fmt: skip


def the_story() -> list[Round]:
    edit, train = EditPrompt(), TrainLora(rows="refined", epochs=4)
    seed, short = Candidate(prompt=SEED.id), Candidate(prompt=SHORT.id)
    shown, tuned = Candidate(prompt=SHOWN.id), Candidate(prompt=SHOWN.id, adapter=ADAPTER)
    return [
        a_round(1, edit, seed, short, 0.0, 0.04, kept=True),
        a_round(2, train, short, Candidate(prompt=SHORT.id, adapter=LOSER), 0.04, 0.0, kept=False),
        a_round(3, edit, short, shown, 0.04, 0.33, kept=True),
        a_round(4, train, shown, tuned, 0.33, 1.0, kept=True),
    ]


def a_round(
    number: int, move: Move, stood: Candidate, trial: Candidate | None, before: float, after: float, kept: bool
) -> Round:
    train = isinstance(move, TrainLora)
    reason = (
        "Words have done what they can: the prompt gap is down to 0.2 nats a token, and 4.8 stay on the answers."
        if train
        else "Most failures lack the wanted form, and demonstrations alone would take 4.0 nats a token away."
    )
    probed = tuple(
        ExampleDiagnosis(example=f"validation:{i}", need="style" if i < 7 else "both", prompt_gap=4.02, weight_gap=1.88)
        for i in range(1, 9)
    )
    proposals = (
        Proposal(prompt=SHOWN.id, note="two demonstrations in the wanted form", merit=0.47),
        Proposal(prompt=SHORT.id, note="say which form is wanted", merit=0.31),
        Proposal(prompt=SEED.id, note="shorten the system text", merit=0.03),
    )
    cost = Spend(seconds=75.2, train_tokens=9216) if train else Spend(seconds=31, generated_tokens=2210)
    return Round(
        number=number,
        signal=Signal(
            reward=before, content=0.5, style=0.67, noise=0.07, loss=0.31 if number > 2 else None,
            loss_drop=0.04 if number > 2 else None, grad_norm=0.62 if number > 2 else None,
            edit=LeverSignal(rounds=min(number - 1, 1), kept=min(number - 1, 1), gain=0.04),
            lora=LeverSignal(rounds=int(number > 2), gain=-0.04, fruitless=int(number > 2), saturated=number == 3),
        ),
        diagnosis=Diagnosis(failing=11, total=12, examples=probed),
        decision=Decision(move=move, reason=reason, numbers={"prompt_gap": 4.02, "lack_style": 0.92}),
        trial=Trial(
            candidate=trial, note="4 epochs on 96 refined rows" if train else "the best of 3 proposals",
            proposals=() if train else proposals, spend=cost,
        ),
        verdict=Verdict(
            kept=kept, reason="The gain is beyond chance." if kept else "No gain: the pair before it stands.",
            before=before, after=after, p_value=0.0004 if kept else 0.62,
        ),
        best=trial if kept and trial else stood, reward=after if kept else before,
        spend=Spend(seconds=40.0 * number, train_tokens=9216 * (number // 2), generated_tokens=2210 * number),
    )  # fmt: skip


def an_outcome(last: Round) -> Outcome:
    seed, best = Candidate(prompt=SEED.id), last.best
    return Outcome(
        stopped="The validation reward reached the target.", best=best,
        baseline_test=SplitResult(candidate=seed, reward=0.08, low=0.0, high=0.25, content=0.17, style=0.08, rows=12),
        best_test=SplitResult(candidate=best, reward=0.92, low=0.75, high=1.0, content=0.92, style=1.0, rows=12),
        p_value=0.0005, spend=last.spend + Spend(seconds=12),
    )  # fmt: skip


# --- the page and its twin -----------------------------------------------------------------------


class Visible(HTMLParser):
    """The words a reader sees, and the tags that hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(run: RunFolder) -> tuple[str, str, str]:
    """The page, the words on it with single spaces, and the Markdown twin."""
    page = write_report(run).read_text(encoding="utf-8")
    seen = Visible()
    seen.feed(page)
    return page, " ".join(" ".join(seen.words).split()), (run.path / "report.md").read_text(encoding="utf-8")


def test_full_run_says_what_came_of_it_and_why(tmp_path: Path) -> None:
    _, words, twin = read(make_run(tmp_path))
    for said in (words, " ".join(twin.split())):
        assert "The target of 0.95 was reached" in said
        assert "The validation reward reached the target." in said
        assert "0.75 – 1.00" in said and "0.00 – 0.25" in said
        assert "p < 0.001" in said
        assert "demonstrations alone would take 4.0 nats a token away" in said
        assert "two demonstrations in the wanted form" in said
        assert "96 rows (refined), 4 epochs, 48 steps" in said
        assert "ANSWER: the copper bridge" in said
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


EVIL = "</div><script>alert('x')</script><img src=x onerror=y> | ```\n# not a heading\n[a](javascript:z)"


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


def outside_fences(markdown: str) -> str:
    """Lines that are not in a code block, by the rule that a fence ends at one at least as long."""
    kept, ticks = [], 0
    for line in markdown.splitlines():
        found = re.match(r"(`{3,})(.*)$", line)
        if not ticks and found:
            ticks = len(found[1])
        elif ticks and found and len(found[1]) >= ticks and not found[2].strip():
            ticks = 0
        elif not ticks:
            kept.append(line)
    assert ticks == 0, "a fence is left open"
    return "\n".join(kept)


@given(st.text(max_size=200))
def test_no_text_breaks_out_of_its_fence(text: str) -> None:
    assert outside_fences(f"{fence(text)}\nafter") == "after"


@given(st.text(alphabet="|\n`<>&*_[]()#-+1. ax\\", max_size=60))
def test_escaped_text_stays_in_its_cell(text: str) -> None:
    line = escape(text)
    assert "\n" not in line
    assert not re.search(r"(?<!\\)(\\\\)*[|`*_\[\]]", line.replace("\\\\", "")), line
    assert not re.search(r"<[A-Za-z/!?]", line)
    assert not re.match(r"[-+#>]\s|#|>", line)


def test_discarded_rounds_are_marked(tmp_path: Path) -> None:
    page, _, twin = read(make_run(tmp_path))
    assert re.search(r'<g class="mark train_lora dropped"><title>round 2, LoRA, taken back: 0.04 → 0.00', page)
    assert re.search(r'<g class="mark train_lora kept"><title>round 4, LoRA, kept: 0.33 → 1.00', page)
    assert '<article class="round dropped" id="round-2">' in page
    assert "| 2 | ● LoRA | rules | taken back | 0.04 → 0.00 |" in twin


def test_diff_shows_what_changed(tmp_path: Path) -> None:
    page, _, twin = read(make_run(tmp_path))
    assert "<del>Be helpful </del><ins>Give the answer as ANSWER: </ins>" in page
    assert '<div class="demo added">' in page
    assert "-You answer questions about the valley. Be helpful" in twin
    assert "+A: ANSWER: Odile" in twin


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
    assert "12 of 500 rounds are told in full" in words and "12 of 500 rounds" in twin
    told = {int(number) for number in re.findall(r'id="round-(\d+)"', page)}
    assert told == {1, 200, *range(491, 501)} == {int(n) for n in re.findall(r"### Round (\d+)", twin)}
    folded = page[page.index("All 500 rounds</summary>") :]
    assert len(re.findall(r'<tr class="(?:kept|dropped)">', folded)) == 500


# --- charts --------------------------------------------------------------------------------------

numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(numbers, max_size=40), st.one_of(st.none(), numbers))
def test_reward_curve_of_any_numbers_is_drawable(rewards: list[float], start: float | None) -> None:
    points = [charts.Point(i, reward, "edit_prompt", True, "<&>") for i, reward in enumerate(rewards, 1)]
    drawn = str(charts.reward_curve(points, start, 0.9))
    assert drawable(drawn)
    assert drawn.count("<title>&lt;&amp;&gt;</title>") == len(points)


@given(st.lists(numbers, min_size=1, max_size=40))
def test_reward_curve_of_many_trials_has_a_dot_for_each_that_was_taken_back(rewards: list[float]) -> None:
    many = [charts.Point(i, rewards[i % len(rewards)], "train_lora", False, "") for i in range(charts.MOST_MARKS + 1)]
    drawn = str(charts.reward_curve(many, 0.0, 0.9))
    assert drawable(drawn)
    assert sum(path.count("M") for path in re.findall(r'class="dots \w+" d="([^"]*)"', drawn)) == len(many)


@given(st.lists(st.lists(numbers, max_size=20), max_size=4))
def test_loss_curve_of_any_numbers_is_drawable(runs: list[list[float]]) -> None:
    drawn = str(charts.loss_curve([charts.LossRun("<b>", values, values[::-1], values[:2]) for values in runs]))
    assert drawable(drawn)
    assert "<b>" not in drawn


@given(numbers, numbers, numbers)
def test_interval_chart_of_any_numbers_is_drawable(value: float, low: float, high: float) -> None:
    assert drawable(str(charts.interval_chart([charts.Bar("best", value, low, high)], 0.9)))


def drawable(svg: str) -> bool:
    """No coordinate is NaN or infinite, in any attribute that places something."""
    placed = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|d)="([^"]*)"', svg)
    return not [value for value in placed if re.search(r"nan|inf", value)]


def test_loss_curve_of_many_steps_is_thinned() -> None:
    losses = [3 / (1 + step / 100) for step in range(50_000)]
    assert len(charts.loss_curve([charts.LossRun("round 1", losses, losses, [1.0])])) < 30_000


def test_best_line_passes_discarded_trials_by() -> None:
    low = charts.Point(2, 0.2, "train_lora", False, "")
    drawn = charts.reward_curve([charts.Point(1, 0.5, "edit_prompt", True, ""), low], 0.0, None)
    line = re.search(r'class="best" d="([^"]*)"', drawn)
    assert line and line[1].count("V") == 1


# --- the live view -------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def play(view: LiveView, clock: Clock) -> None:
    with view:
        view.event(
            "run", {"name": "valley-1", "task": "valley", "model": "smollm2-135m", "policy": "rules", "folder": "r"}
        )
        view.event("baseline", {"row": a_baseline()})
        for row in the_story():
            view.event("round-start", {"number": row.number})
            view.event("decision", {"number": row.number, "decision": row.decision})
            for step in range(51):
                clock.now += 1
                view("training", step, 50, "loss 0.31 [bold]")
            view.event("verdict", {"row": row})
        view.event("note", {"text": "the planner did not answer;\x1b[31m the rules decide"})
        view.event("finish", {"outcome": an_outcome(the_story()[-1])})


def test_live_view_writes_plain_lines_where_nobody_watches() -> None:
    clock, out = Clock(), io.StringIO()
    play(LiveView(Console(file=out, width=80), clock), clock)
    text = out.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert "◆ edit  Most failures lack the wanted form, and demonstrations alone would take 4.0 nats" in text
    assert "0.04 → 0.00  taken back  p 0.62  +1 min 15 s  (1 min 20 s so far)" in text
    assert "0.33 → 1.00  kept" in text
    assert re.search(r"best pair +0\.92 +0\.75 – 1\.00", text)
    assert "report: r/report.html" in text


def test_progress_lines_come_at_most_every_ten_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    play(LiveView(Console(file=out, width=80), clock), clock)
    lines = [line for line in out.getvalue().splitlines() if line.startswith("training ")]
    assert 16 <= len(lines) <= 20
    assert "loss 0.31 [bold]" in lines[0] and re.search(r"about \d+ s left", lines[0])


def test_live_view_on_a_terminal_stays_within_80_columns_and_keeps_finished_rounds() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    play(LiveView(console, clock), clock)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n")
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert plain.count("taken back") == 1
    assert plain.count("training") >= 4
    assert "\x1b[31m" not in out.getvalue()


def test_nothing_is_drawn_over_what_the_user_types_after_the_work() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, width=80, force_terminal=True)) as view:
        view("training", 1, 2)
        view("training", 2, 2)
        drawn = out.tell()
        time.sleep(0.25)  # two redraws of a live line
        assert out.tell() == drawn
