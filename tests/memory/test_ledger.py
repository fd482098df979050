"""The run folder: what it keeps, what it refuses, and what a kill or a full disk leaves of it."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadInput, Busy
from agent.records.actions import Decision, TrainLora
from agent.records.evaluation import ExampleScore, Measurements
from agent.records.events import Note, RoundJudged, RoundStarted, RunStarted
from agent.records.examples import Candidate, Demo, Prompt, Split
from agent.records.rounds import Baseline, Call, Outcome, Remaking, Round, Spend, SplitResult, Trial, Usage, Verdict
from agent.records.signal import Diagnosis, Signal
from memory.rewrites import KeptRewrite, RoundRewrites
from memory.run.folder import RunFolder, runs
from memory.run.ledger import Row
from memory.storage.disk import append_line
from tests.fixtures.story import make_run, the_story

ROOT = Path(__file__).resolve().parents[2]
PAIR = Candidate(prompt=Prompt(system="seed").id)

HOLD = """
import sys, time
from pathlib import Path
from memory.run.folder import RunFolder
with RunFolder.open(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new(tmp_path)


def new(root: Path, name: str | None = None) -> RunFolder:
    return RunFolder.create(root, "valley", "name: valley\n", source=root / "tasks", digest="0123456789ab", name=name)


def baseline(note: str = "seed stands") -> Baseline:
    return Baseline(
        seed=PAIR, seed_reward=0.25, best=PAIR, reward=0.25, content=0.5, style=0.5, note=note, spend=Spend(seconds=1.5)
    )


def round_(number: int, reason: str = "facts are missing") -> Round:
    return Round(
        number=number,
        signal=Signal(reward=0.25, content=0.5, style=0.5, noise=0.1),
        diagnosis=Diagnosis(failing=3, total=4),
        decision=Decision(move=TrainLora(epochs=2), reason=reason, numbers={"weight_gap": 4.5}),
        trial=Trial(candidate=PAIR, note="trained", loss=0.5),
        verdict=Verdict(kept=True, reason="better", before=0.25, after=0.5, p_value=0.05),
        best=PAIR,
        reward=0.5,
        spend=Spend(seconds=9, train_tokens=100),
    )


def outcome(stopped: str = "the target is reached") -> Outcome:
    result = SplitResult(candidate=PAIR, reward=0.5, low=0.4, high=0.6, content=0.7, style=0.7, rows=12)
    return Outcome(stopped=stopped, best=PAIR, baseline_test=result, best_test=result, p_value=0.5, spend=Spend())


def measured(output: str = "ANSWER: Ada", split: Split = "validation") -> Measurements:
    score = ExampleScore(example=f"{split}:1", output=output, content=1.0, style=0.0, faults=("too long",))
    return Measurements(candidate=PAIR, split=split, scores={"k1": score}, nats={"k1": 0.1 + 0.2})


# --- a run as a whole ------------------------------------------------------------------------------


def test_a_created_run_is_opened_with_what_was_given(tmp_path: Path) -> None:
    made = new(tmp_path)
    run = RunFolder.open(made.path)
    assert run.about.source == str(tmp_path / "tasks")
    assert (run.about.task, run.about.digest) == ("valley", "0123456789ab")
    assert run.task_file.read_text() == "name: valley\n"


def test_runs_of_the_same_second_get_names_of_their_own_and_come_newest_first(tmp_path: Path) -> None:
    made = [new(tmp_path) for _ in range(4)]
    assert len({run.name for run in made}) == 4
    assert all(run.name.startswith("valley-") for run in made)
    assert [run.name for run in runs(tmp_path)] == [run.name for run in reversed(made)]


def test_what_another_process_adds_is_read_and_what_stood_there_is_not_read_again(tmp_path: Path) -> None:
    mine = make_run(tmp_path, rounds=2, finished=False)
    theirs = RunFolder.open(mine.path)
    before = theirs.rounds()
    mine.append(the_story()[2])
    after = theirs.rounds()
    assert [row.number for row in after] == [1, 2, 3] and all(a is b for a, b in zip(before, after, strict=False))
    ledger = mine.path / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join([*lines[:2], lines[2].replace('"number": 2', '"number":  2')]) + "\n")
    assert [row.number for row in theirs.rounds()] == [1, 2], "edited: the whole file is read again"
    ledger.write_text("\n".join(lines) + "\n")
    assert [row.number for row in theirs.rounds()] == [1, 2, 3]
    ledger.write_text("")
    assert theirs.rounds() == []


def test_a_row_that_another_process_adds_is_read_without_those_before_it(tmp_path: Path) -> None:
    mine = make_run(tmp_path, rounds=1, finished=False)
    for number in range(2, 120):
        mine.append(the_story()[0].model_copy(update={"number": number}))
    theirs = RunFolder.open(mine.path)
    first, *_, last = theirs.rounds()
    assert first.diagnosis.model_fields_set is last.diagnosis.model_fields_set, "names of fields stand once in memory"
    mine.append(the_story()[0].model_copy(update={"number": 120}))
    tracemalloc.start()
    try:
        assert len(theirs.rounds()) == 120
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < (mine.path / "ledger.jsonl").stat().st_size / 4


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    new(tmp_path, name="mine")
    with pytest.raises(BadInput, match="run named mine"):
        new(tmp_path, name="mine")


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", "..", "/abs", "a\n"])
def test_a_name_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="cannot be named"):
        new(tmp_path / "runs", name=name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_run_is_refused_with_the_nearest_names(tmp_path: Path) -> None:
    new(tmp_path, name="valley-spring")
    with pytest.raises(BadInput, match="valley-spring"):
        RunFolder.open(tmp_path / "valley-sprung")
    with pytest.raises(BadInput, match="no runs in"):
        RunFolder.open(tmp_path / "elsewhere" / "x")


def test_a_folder_whose_making_was_cut_off_is_no_run(tmp_path: Path) -> None:
    (new(tmp_path, name="cut").path / "run.json").unlink()
    assert runs(tmp_path) == []
    with pytest.raises(BadInput, match="no run at"):
        RunFolder.open(tmp_path / "cut")
    assert new(tmp_path, name="cut").about.task == "valley", "the name is free"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(BadInput, match="run named other"):
        new(tmp_path, name="other")


def test_a_damaged_run_hides_no_other(tmp_path: Path) -> None:
    new(tmp_path, name="before")
    (new(tmp_path, name="damaged").path / "run.json").write_text("{")
    new(tmp_path, name="after")
    assert [run.name for run in runs(tmp_path)] == ["after", "damaged", "before"]
    with pytest.raises(BadInput, match=r"damaged.run\.json cannot be read"):
        RunFolder.open(tmp_path / "damaged")


def test_what_an_unfinished_step_used_up_is_charged_to_that_step_only(run: RunFolder) -> None:
    once = Spend(seconds=1.0, read_tokens=5)
    for _ in range(2):
        run.charges.charge("1-judge", once)
    assert run.charges.begin("1-judge") == once, "after a kill"
    assert run.charges.begin("1-remember") == Spend()
    assert run.charges.begin("1-judge") == once, "a checkpoint back"
    run.charges.begin("3-observe")
    assert run.charges.begin("1-judge") == Spend(), "no checkpoint goes back that far"


def test_a_run_that_begins_anew_counts_what_no_row_of_its_ledger_does_and_counts_it_once(run: RunFolder) -> None:
    for tokens, step in enumerate(["0-baseline", "0-plan", "0-remember-1", "1-plan", "1-plan-1"]):
        run.charges.charge(step, Spend(read_tokens=10**tokens))
    for _ in range(2):  # killed again before a checkpoint counts it
        assert run.charges.restart(1) == Spend(read_tokens=11_100)
    assert run.charges.begin("1-plan") == Spend() and run.charges.counted("1-plan") == Spend(read_tokens=1000)
    run.charges.charge("1-plan", Spend(read_tokens=5))
    assert run.charges.restart(1) == Spend(read_tokens=11_105)
    assert run.charges.restart(2) == Spend()


def test_the_charge_of_an_older_version_is_read(run: RunFolder) -> None:
    (run.path / "charge.json").write_text('{"step": "1-train_lora", "spend": {"seconds": 2.5, "train_tokens": 7}}')
    assert run.charges.begin("1-train_lora") == Spend(seconds=2.5, train_tokens=7)


# --- artefacts -------------------------------------------------------------------------------------


def test_a_prompt_comes_back_by_its_id(run: RunFolder) -> None:
    prompt = Prompt(system="Say \u2028 é", demos=(Demo(question="q", answer="a"),), template="Q: {question}")
    assert run.save_prompt(prompt) == prompt.id
    assert run.save_prompt(prompt) == prompt.id
    assert RunFolder.open(run.path).prompt(prompt.id) == prompt


def test_a_prompt_that_is_missing_or_was_changed_is_refused(run: RunFolder) -> None:
    id = run.save_prompt(Prompt(system="before"))
    file = run.path / "prompts" / f"{id}.json"
    file.write_text(file.read_text().replace("before", "behind"))
    assert run.prompt(id).system == "before", "from prompts.jsonl"
    (run.path / "prompts.jsonl").unlink()
    with pytest.raises(BadInput, match="changed after it was saved"):
        run.prompt(id)
    with pytest.raises(BadInput, match="no such prompt"):
        run.prompt("0" * 12)


@pytest.mark.parametrize("id", ["../../etc/x", "..", "", "0" * 11, "0" * 13, "0" * 12 + "\n", "A" * 12, "/etc/passwd"])
def test_what_is_not_an_id_names_no_path(run: RunFolder, id: str) -> None:
    for look in (run.prompt, run.adapter_folder, run.has_adapter):
        with pytest.raises(BadInput, match="twelve"):
            look(id)


def test_a_link_that_leads_out_of_the_run_is_not_followed(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (run.path / "adapters").symlink_to(tmp_path / "outside")
    with pytest.raises(BadInput):
        run.adapter_folder("0" * 12)


def test_an_adapter_counts_only_when_its_marker_is_there(run: RunFolder) -> None:
    folder = run.adapter_folder("a" * 12)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    assert not run.has_adapter("a" * 12)
    (folder / "complete").touch()
    assert run.has_adapter("a" * 12)


def test_what_was_measured_is_kept_apart_by_pair_and_split_and_replaced_as_a_whole(run: RunFolder) -> None:
    run.save(measured("first"))
    run.save(measured())
    run.save(measured(split="train"))
    assert run.load(PAIR, "validation") == measured()
    assert run.load(PAIR, "train") == measured(split="train")
    tuned = Candidate(prompt=PAIR.prompt, adapter="b" * 12)
    assert run.load(tuned, "validation") == Measurements(candidate=tuned, split="validation")
    assert len(list((run.path / "evaluations").iterdir())) == 2


def rewritten(question: str) -> KeptRewrite:
    where = {"task": "valley", "model": "tiny", "run": "valley-1"}
    return KeptRewrite(source="a" * 12, question=question, answer="ANSWER: Ada", prompt=PAIR.prompt, **where)


def reworded(*questions: str) -> RoundRewrites:
    remaking = Remaking(asked=12, tried=9, kept=len(questions), before=0.1, after=0.4)
    return RoundRewrites(remaking=remaking, kept=tuple(map(rewritten, questions)), remark="the LLM was lost")


def test_what_a_round_made_of_hard_questions_is_kept_once_and_all_rewrites_come_back_in_one_order(
    run: RunFolder,
) -> None:
    assert run.rewrites() == [] and run.round_rewrites(1) is None
    made = {10: reworded("Who, then?", "Who is it?"), 2: reworded("Who else?"), 3: reworded()}
    for number, kept in made.items():
        run.save_round_rewrites(number, kept)
        run.save_round_rewrites(number, reworded("Who comes late?"))
    again = RunFolder.open(run.path)
    assert {number: again.round_rewrites(number) for number in made} == made
    assert again.rewrites() == sorted([*made[10].kept, *made[2].kept], key=lambda rewrite: rewrite.id)


# --- the ledger and the events -----------------------------------------------------------------------


def test_rows_come_back_typed_and_in_order(run: RunFolder) -> None:
    assert (run.baseline(), run.rounds(), run.outcome()) == (None, [], None)
    rows: list[Row] = [baseline(), round_(1), round_(2), outcome()]
    for row in rows:
        run.append(row)
    for reader in (run, RunFolder.open(run.path)):
        assert [reader.baseline(), *reader.rounds(), reader.outcome()] == rows


def test_a_row_is_written_once_and_never_changed(run: RunFolder) -> None:
    for row in (baseline(), round_(1), outcome()):
        run.append(row)
    before = (run.path / "ledger.jsonl").read_bytes()
    again = RunFolder.open(run.path)
    for row in (baseline("other"), round_(1, "other"), outcome("other")):
        run.append(row)
        again.append(row)
    assert (run.path / "ledger.jsonl").read_bytes() == before


@given(cut=st.integers(min_value=1), reason=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_torn_last_line_is_dropped_and_the_file_repaired(
    tmp_path_factory: pytest.TempPathFactory, cut: int, reason: str
) -> None:
    run = new(tmp_path_factory.mktemp("runs"))
    run.append(round_(1, reason))
    whole = (run.path / "ledger.jsonl").read_bytes()
    run.append(round_(2, reason))
    os.truncate(run.path / "ledger.jsonl", len(whole) + cut % len(whole))

    resumed = RunFolder.open(run.path)
    assert resumed.rounds() == [round_(1, reason)]
    resumed.append(round_(2, reason))
    for reader in (resumed, RunFolder.open(run.path), run):
        assert reader.rounds() == [round_(1, reason), round_(2, reason)]


def test_a_whole_line_that_is_no_row_is_named(run: RunFolder) -> None:
    run.append(round_(1))
    append_line(run.path / "ledger.jsonl", '{"kind": "rumour"}', sync=False)
    with pytest.raises(BadInput, match=r"ledger\.jsonl, line 2"):
        RunFolder.open(run.path).rounds()


def test_another_reader_sees_rows_as_they_are_added(run: RunFolder) -> None:
    reader = RunFolder.open(run.path)
    for number in (1, 2, 3):
        run.append(round_(number))
        assert [row.number for row in reader.rounds()] == list(range(1, number + 1))


def test_events_are_kept_in_order_with_their_time(run: RunFolder) -> None:
    run.event(Note(text="line\u2028end"))
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"kind": "torn')
    run.event(RoundJudged(row=round_(1)))
    (first, second), left_out = RunFolder.open(run.path).events()
    assert (first.event, second.event) == (Note(text="line\u2028end"), RoundJudged(row=round_(1)))
    assert first.time <= second.time and left_out == 0


def test_events_are_written_as_they_always_were(run: RunFolder) -> None:
    """A time, the kind, then the data: what older runs hold, and what older versions read."""
    for event in (Note(text="hm"), RoundStarted(number=1), RunStarted(name="r", task="t", model="m", policy="p")):
        run.event(event)
    lines = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    times = [line.pop("time") for line in lines]
    assert all(datetime.fromisoformat(time).tzinfo for time in times) and times == sorted(times)
    assert [list(line.items()) for line in lines] == [
        [("kind", "note"), ("text", "hm")],
        [("kind", "round-start"), ("number", 1)],
        [("kind", "run"), ("name", "r"), ("task", "t"), ("model", "m"), ("policy", "p"), ("folder", "")],
    ]


def test_events_that_cannot_be_read_are_counted_and_left_out(run: RunFolder) -> None:
    time = "2026-03-01T12:00:00+00:00"
    lines = [
        {"time": time, "kind": "note", "text": "of an older run"}, {"time": time, "kind": "epoch", "loss": 0.5},
        {"time": time, "kind": "verdict", "row": {"number": 1}}, {"kind": "note", "text": "without a time"}, [], None,
    ]  # fmt: skip
    with (run.path / "events.jsonl").open("a") as file:
        file.write("".join(f"{json.dumps(line)}\n" for line in lines) + "not JSON\n\n" + "[" * 100_000 + "\n")
    entries, left_out = run.events()
    assert [(entry.time, entry.event) for entry in entries] == [(time, Note(text="of an older run"))]
    assert left_out == len(lines) - 1 + 3
    assert run.events().of(Note) == [Note(text="of an older run")] and run.events().of(RunStarted) == []


def call(number: int, fault: str = "", settled: bool = False) -> Call:
    usage = Usage(calls=1, input_tokens=100, output_tokens=20, usd=0.001)
    return Call(number=number, role="editor", model="m", usage=usage, settled=settled, fault=fault)


def test_calls_come_back_in_the_order_written_without_one_that_was_cut_off(run: RunFolder) -> None:
    assert run.calls() == []
    lines = [call(1), call(2), call(2, "HTTP 500:\u2028 wait", settled=True), call(1, settled=True)]
    for line in lines:
        run.log(line)
    with (run.path / "calls.jsonl").open("a") as file:
        file.write(call(3).model_dump_json()[:-1])
    assert RunFolder.open(run.path).calls() == lines
    run.log(call(4))
    assert run.calls() == [*lines, call(4)]


def test_a_line_that_is_no_call_is_named(run: RunFolder) -> None:
    run.log(call(1))
    append_line(run.path / "calls.jsonl", '{"number": "many"}', sync=False)
    with pytest.raises(BadInput, match=r"calls\.jsonl, line 2"):
        run.calls()


def test_calls_of_many_threads_are_all_written(run: RunFolder) -> None:
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda number: run.log(call(number, "x" * 9000)), range(200)))
    assert sorted(line.number for line in run.calls()) == list(range(200))


# --- the lock --------------------------------------------------------------------------------------


def hold(run: RunFolder) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(run.path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_is_killed(run: RunFolder) -> None:
    process = hold(run)
    try:
        with pytest.raises(Busy, match=rf"{run.name} is in use by process {process.pid} on "), run.locked():
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (run.path / "run.holder").exists()
    with run.locked():
        assert f'"pid": {os.getpid()}' in (run.path / "run.holder").read_text()


def test_a_lock_is_let_go_after_an_error(run: RunFolder) -> None:
    with pytest.raises(KeyError), run.locked():
        raise KeyError
    with run.locked():
        pass
    assert not (run.path / "run.holder").exists()
