"""Whole runs whose weights forget: on general text, and on tasks that are to be kept."""

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import nesylora
from agent.errors import BadInput
from agent.protocols import Asked
from agent.records.actions import TrainLora
from agent.records.examples import Demo, Example
from graphs.context import Context, new_run
from graphs.nodes.approve import cost_of
from graphs.services.forgetting import Forgetting
from graphs.services.run import RunServices
from graphs.session import open_session
from memory.embedder import MiniLm
from memory.run.folder import RunFolder
from tests.fixtures.forks import run_forked
from tests.fixtures.learnable import LEARNABLE, TinyTask
from tests.fixtures.scripted_vllm import scripted_vllm
from tests.fixtures.story import make_run
from tools.model.backbone import Backbone

ROOT = Path(__file__).parents[2]
TRAINED = ["policy=lora-only", "budget.rounds=2", "seed=1", "lora.replay=0"]


def a_run(task: Path, runs: Path, *overrides: str) -> RunFolder:
    return RunFolder.open(nesylora.adapt(task, overrides=[*TRAINED, *overrides], runs=runs).run)


def test_a_training_that_forgets_too_much_is_taken_back_and_the_next_one_made_otherwise(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    task = tiny_task(**LEARNABLE)
    first, second = a_run(task, tmp_path, "gate.drift=0.3").rounds()
    assert first.verdict.gain > 0 and first.verdict.overruled and first.verdict.objection == "drift"
    assert first.verdict.drift is not None and first.verdict.drift > 0.3 and first.verdict.drift_before == 0
    assert not first.verdict.kept and first.best.adapter is None
    assert "taken back: it forgets" in first.verdict.reason and "gate.drift allows 0.3" in first.verdict.reason
    assert first.signal.drift == 0 and first.signal.lora.outlook and first.signal.lora.outlook.drift == 0.3
    assert isinstance(first.decision.move, TrainLora) and isinstance(second.decision.move, TrainLora)
    assert second.decision.move.fresh
    assert (first.decision.move.replay, second.decision.move.replay) == (0.0, 0.25)
    assert "forgot too much" in second.decision.reason
    assert second.signal.lora.fruitless == 0 and second.signal.lora.outlook is not None
    assert second.signal.lora.outlook.drift == pytest.approx(first.verdict.drift)
    assert second.verdict.level == first.verdict.level, "what passed its test gave back its alpha"


def test_without_a_limit_or_a_gate_drift_is_measured_and_shown_only(tiny_task: TinyTask, tmp_path: Path) -> None:
    run = a_run(tiny_task(**LEARNABLE), tmp_path, "gate.drift=0.3", "without=[gate]", "budget.rounds=1")
    [row], outcome = run.rounds(), run.outcome()
    assert row.verdict.kept and row.verdict.objection is None and outcome is not None
    assert row.verdict.drift == outcome.drift == outcome.drift_of_best and (outcome.drift or 0) > 0.3
    report = run.report_md.read_text()
    assert f"drift +0.00 → +{outcome.drift:.2f} nats a token" in report
    assert json.loads((run.path / "drifts.json").read_text()).keys() == {row.best.adapter}


def test_where_the_general_text_does_not_fit_nothing_is_objected_to(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.diagnosis.drift.general_baseline", lambda model: None)
    [row] = a_run(tiny_task(**LEARNABLE), tmp_path, "gate.drift=0.3", "budget.rounds=1").rounds()
    assert row.verdict.kept and "could not be measured" in row.verdict.reason


def test_losses_on_texts_of_another_version_are_measured_anew(tiny_task: TinyTask, tmp_path: Path) -> None:
    run = a_run(tiny_task(**LEARNABLE), tmp_path, "budget.rounds=1")
    baseline, [row] = run.general_baseline(), run.rounds()
    assert baseline is not None and row.trial.candidate is not None and row.trial.candidate.adapter is not None
    run.save_general_baseline(baseline.model_copy(update={"probe": "older", "losses": baseline.losses[:3]}))
    services = RunServices(Context(run=str(run.path)))
    assert services.forgetting.drift(row.trial.candidate.adapter) == pytest.approx(row.verdict.drift)
    assert run.general_baseline() == baseline


# --- tasks that are to be kept --------------------------------------------------------------------


@pytest.fixture
def keeping(tiny_task: TinyTask, tmp_path: Path, tiny_model: Callable[[str], Path]) -> Callable[..., Path]:
    """The learnable task, keeping another, to three of whose questions the untrained model happens to say `mere`."""

    def make(other: dict[str, Any] | None = None, answer: str = "mere", **changes: Any) -> Path:
        folder = tmp_path / "other"
        folder.mkdir(exist_ok=True)
        for split in ("train", "validation", "test"):
            rows = [{"question": f"Say {word}, {split}.", "answer": answer} for word in ("a", "b", "c", "d")]
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        settings = {
            "name": "other", "model": str(tiny_model("llama")), "content": [{"kind": "contains"}],
            "generation": {"max_new_tokens": 8},
            "data": {split: f"{split}.jsonl" for split in ("train", "validation", "test")},
        }  # fmt: skip
        (folder / "task.yaml").write_text(yaml.safe_dump(settings | (other or {})))
        return tiny_task(**LEARNABLE | {"keep": "../other/task.yaml"} | changes)

    return make


def test_after_a_change_of_engine_kept_tasks_are_measured_anew(
    keeping: Callable[..., Path], tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    run = new_run(keeping(), ["recall.prompts=0"], tmp_path / "runs", "a")

    def measured() -> float:
        [score] = RunServices(Context(run=str(run.path))).forgetting.kept(None)
        return score.base

    assert measured() == 0.75
    with scripted_vllm(tiny_model("llama"), "tiny", says=[5, 1]) as server:
        settings = yaml.safe_load(run.task_file.read_text())
        settings["generation"] |= {"engine": "vllm", "url": server.url}
        run.task_file.write_text(yaml.safe_dump(settings))
        assert measured() == 0 and len([path for path, _ in server.asked if path == "/v1/completions"]) == 4
        assert measured() == 0 and len([path for path, _ in server.asked if path == "/v1/completions"]) == 4


def test_a_kept_task_that_falls_takes_the_training_back(keeping: Callable[..., Path], tmp_path: Path) -> None:
    """It teaches to say Heskzan whatever is asked."""
    run = a_run(keeping(), tmp_path / "runs", "budget.rounds=1")
    baseline, [row], outcome = run.baseline(), run.rounds(), run.outcome()
    assert baseline is not None and outcome is not None
    [base], [score] = baseline.keep, row.verdict.keep
    assert (base.base, base.reward, base.rows) == (0.75, 0.75, 4)
    assert score.task == "../other/task.yaml" and score.base == 0.75 and score.reward < 0.7
    assert row.verdict.objection == "keep" and row.verdict.overruled and not row.verdict.kept
    assert f"../other/task.yaml from 0.75 to {score.reward:.2f}" in row.verdict.reason
    assert outcome.keep == baseline.keep, "the pair that stays is the bare one"
    page = run.report_md.read_text()
    assert "Tasks to be kept, the bare model → these weights: ../other/task.yaml: 0.75 → 0.75" in page
    assert not list(run.path.glob("keep/*/evaluations/*-test.json"))


def test_a_kept_task_whose_prompt_retrieves_is_shown_its_own_train_rows(
    keeping: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Example] = []
    generate_each = Backbone.generate_each

    def noted(self: Backbone, asked: Sequence[Asked], **options: Any) -> Any:
        seen.extend(example for _, examples in asked for example in examples)
        return generate_each(self, asked, **options)

    monkeypatch.setattr(Backbone, "generate_each", noted)
    task = keeping({"prompt": {"system": "Say it.", "retrieval": {"k": 2}}})
    a_run(task, tmp_path / "runs", "budget.rounds=1")
    own = [row for row in seen if row.question.endswith("validation.") and row.question.startswith("Say ")]
    assert len(own) >= 4
    for row in own:
        assert len(row.demos) == 2
        assert all(demo.question.startswith("Say ") and demo.question.endswith(", train.") for demo in row.demos)


def test_a_kept_task_that_holds_is_in_the_verdict_and_no_more(keeping: Callable[..., Path], tmp_path: Path) -> None:
    run = a_run(keeping(answer="Heskzan"), tmp_path / "runs", "budget.rounds=1")
    [row] = run.rounds()
    assert row.verdict.kept and row.verdict.objection is None
    assert [(score.base, score.reward) for score in row.verdict.keep] == [(0.0, 1.0)]


def test_answers_to_kept_tasks_are_part_of_a_trainings_price(keeping: Callable[..., Path], tmp_path: Path) -> None:
    run = a_run(keeping(answer="Heskzan"), tmp_path / "with", "budget.rounds=1")
    with open_session(run) as session:
        assert cost_of(TrainLora(), session.services).validation_answers == 4 + 4
    alone = a_run(keeping(keep=[]), tmp_path / "without", "budget.rounds=1")
    priced, free = (found.rounds()[0].signal for found in (run, alone))
    assert priced.lora.outlook and free.lora.outlook and priced.edit.outlook == free.edit.outlook
    assert priced.lora.outlook.cost > free.lora.outlook.cost
    assert run.rounds()[0].spend.forward_tokens > alone.rounds()[0].spend.forward_tokens


def test_a_fall_within_the_tolerance_is_kept(keeping: Callable[..., Path], tmp_path: Path) -> None:
    run = a_run(keeping(), tmp_path / "runs", "budget.rounds=1", "gate.keep_tolerance=1")
    assert run.rounds()[0].verdict.kept


def test_a_kept_task_that_retrieves_is_shown_its_own_train_rows_as_they_fit_the_model(
    keeping: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, embedded = list[Demo](), list[str]()
    generate_each, embed = Backbone.generate_each, MiniLm.__call__

    def noted(self: Backbone, asked: Sequence[Asked], **options: Any) -> Any:
        shown.extend(demo for _, examples in asked for example in examples for demo in example.demos)
        return generate_each(self, asked, **options)

    def counted(self: MiniLm, texts: Sequence[str]) -> list[list[float]]:
        embedded.extend(texts)
        return embed(self, texts)

    monkeypatch.setattr(Backbone, "generate_each", noted)
    monkeypatch.setattr(MiniLm, "__call__", counted)
    task = keeping({"prompt": {"retrieval": {"k": 1}}}, answer="Heskzan<|im_end|>")
    a_run(task, tmp_path / "runs", "budget.rounds=1", "edit.retrieve=0")
    assert {demo.answer for demo in shown} == {"Heskzan"}
    assert {demo.question for demo in shown} <= {f"Say {word}, train." for word in "abcd"}
    times = [embedded.count(f"Say {word}, train.") for word in "abcd"]
    assert times == [2] * 4, "once to measure the rows, and once to answer under whatever weights"


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"model": "another"}, "is of model another, and this task of"),
        ({"keep": "../task"}, "keeps tasks itself"),
        ({"content": [{"kind": "judge", "rubric": "Right?"}], "llm": {"model": "m"}}, "scored by an LLM"),
        ({"nmae": "x"}, "unknown key 'nmae'"),
    ],
)
def test_a_task_that_cannot_be_kept_is_refused_with_file_and_line(
    keeping: Callable[..., Path], tmp_path: Path, other: dict[str, Any], sentence: str
) -> None:
    task = keeping(other)
    line = (task / "task.yaml").read_text().splitlines().index("keep: ../other/task.yaml") + 1
    with pytest.raises(BadInput, match=f"task.yaml, line {line}: keep: ") as refused:
        new_run(task, runs=tmp_path / "runs")
    assert sentence in str(refused.value)


def test_a_kept_task_that_is_not_there_is_named_with_its_place(keeping: Callable[..., Path], tmp_path: Path) -> None:
    task = keeping(keep=["../other", "../nowhere"])
    with pytest.raises(BadInput, match=r"task.yaml, line \d+: keep: .*nowhere: No such file"):
        new_run(task, runs=tmp_path / "runs")
    with pytest.raises(BadInput, match=r"override 'keep=../nowhere': keep: "):
        new_run(task, ["keep=../nowhere"], tmp_path / "runs")


def test_rows_of_a_kept_task_have_to_fit_the_window(keeping: Callable[..., Path], tmp_path: Path) -> None:
    folder = new_run(keeping({"generation": {"max_new_tokens": 1020}}), TRAINED, tmp_path / "runs")
    with pytest.raises(BadInput, match="do not fit into the 1024 tokens"), open_session(folder) as session:
        session.go()


def test_a_kept_task_that_changed_is_refused_at_resume(keeping: Callable[..., Path], tmp_path: Path) -> None:
    task = keeping()
    folder = new_run(task, TRAINED, tmp_path / "runs")
    keeping({"prompt": {"system": "Another prompt."}})
    refused = pytest.raises(BadInput, match=r"the kept task ../other/task.yaml have changed since run")
    with refused, open_session(folder) as session:
        session.go()


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from graphs.services.forgetting import Forgetting
from graphs.services.run import RunServices
from graphs.session import open_session
from graphs.services.forgetting import Forgetting
from graphs.services.run import RunServices
from memory.run.folder import RunFolder
append = RunFolder.append
def appending(folder, row):  # what is measured stands, and no row of the ledger has it
    if type(row).__name__ == "Round": os.kill(os.getpid(), signal.SIGKILL)
    append(folder, row)
RunFolder.append = appending
with open_session(RunFolder.open(Path(sys.argv[1]))) as session:
    session.go()
"""


@pytest.mark.parametrize("lost", [False, True], ids=["nothing lost", "checkpoints lost"])
def test_a_run_killed_between_measuring_and_its_row_ends_as_it_would_have(
    keeping: Callable[..., Path], tmp_path: Path, lost: bool
) -> None:
    overrides = [*TRAINED, "budget.rounds=1", "gate.drift=0.3"]
    whole = a_run(keeping(), tmp_path / "whole", *overrides)
    folder = new_run(keeping(), overrides, tmp_path / "killed")
    assert run_forked(KILLED.format(root=str(ROOT)), folder.path).returncode == -signal.SIGKILL
    files = [folder.path / "general.json", folder.path / "drifts.json", *folder.path.glob("keep/*/*/*")]
    measured = {file: file.stat().st_mtime_ns for file in files}
    assert len(measured) == 4
    for file in folder.path.glob("checkpoints.sqlite*") if lost else ():
        file.unlink()
    with open_session(folder) as session:
        session.go()
    [row], [wanted] = folder.rounds(), whole.rounds()
    assert row.verdict == wanted.verdict and row.spend.forward_tokens == wanted.spend.forward_tokens
    assert {file: file.stat().st_mtime_ns for file in measured} == measured, "nothing is measured twice"


def test_no_weights_win_a_tie_against_the_bare_base_and_it_wins_one_against_weights_that_forget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drifts = {"better": -0.4, "worse": 0.4}
    monkeypatch.setattr(Forgetting, "drift", lambda _, adapter: drifts[adapter] if adapter else 0.0)
    forgetting = Forgetting(make_run(tmp_path), [], pytest.fail, pytest.fail, pytest.fail)
    assert not forgetting.forgets_less("better", None)
    assert forgetting.forgets_less(None, "worse") and forgetting.forgets_less("better", "worse")
    assert not forgetting.forgets_less("worse", "better")
