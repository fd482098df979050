"""The whole graph on a tiny random model: real training, real Chroma, real SQLite checkpoints, in seconds."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nesylora
from agent.records.events import Event, Note, PlanAnswered
from agent.records.examples import Demo, Prompt
from graphs.approval import APPROVE, instead
from graphs.context import Context, new_run
from graphs.services.run import RunServices
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.learnable import LEARNABLE, TinyTask

ROOT = Path(__file__).parents[2]


class Watcher:
    """A listener that notes every event, and may do something at one."""

    def __init__(self, at: str = "", do: Callable[[], None] = lambda: None) -> None:
        self.events: list[Event] = []
        self._at, self._do = at, do

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == self._at and done == 2:
            self._do()

    def event(self, event: Event) -> None:
        self.events.append(event)


def actions(run: RunFolder) -> list[str]:
    return [row.decision.move.action for row in run.rounds()]


def test_a_run_from_task_to_report(tiny_task: TinyTask, tmp_path: Path) -> None:
    watcher = Watcher()
    adapted = nesylora.adapt(tiny_task(), runs=tmp_path / "runs", listener=watcher)
    run = RunFolder.open(adapted.run)
    rounds, outcome = run.rounds(), run.outcome()
    assert outcome == adapted.outcome and outcome is not None
    assert 1 <= len(rounds) <= 3
    assert [row.number for row in rounds] == list(range(1, len(rounds) + 1))
    assert all(row.decision.reason and row.decision.numbers for row in rounds)
    edits = [row.trial for row in rounds if row.trial.proposals]
    assert edits and all(len(edit.raced) == 1 for edit in edits), "of four train rows, proposals demonstrate most"
    assert {proposal.rows for edit in edits for proposal in edit.proposals} == {1}
    assert all(row.verdict.rows == 3 for row in rounds if row.trial.raced and row.trial.candidate)
    assert outcome.best_test.rows == 4
    assert outcome.commonest is not None and outcome.commonest.reward is not None
    assert (run.path / "report.html").stat().st_size > 1000
    assert watcher.events[0].kind == "run" and watcher.events[-1].kind == "finish"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("lora-only", {"train_lora"}), ("prompt-only", {"edit_prompt"}), ("p -> w -> p", {"edit_prompt", "train_lora"})],
)
def test_a_fixed_order_pulls_its_levers_only(
    tiny_task: TinyTask, tmp_path: Path, policy: str, expected: set[str]
) -> None:
    adapted = nesylora.adapt(tiny_task(), overrides=[f"policy={policy}"], runs=tmp_path / "runs")
    assert set(actions(RunFolder.open(adapted.run))) == expected


def test_rounds_that_are_not_kept_leave_the_pair_as_it_was(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task(**LEARNABLE | {"budget": {"rounds": 6}, "target": 1.0, "content": [{"kind": "exact"}]})
    run = RunFolder.open(nesylora.adapt(task, overrides=["policy=p -> w -> p"], runs=tmp_path / "runs").run)
    first = run.baseline()
    assert first is not None
    best = first.best
    for row in run.rounds():
        assert row.best == (row.trial.candidate if row.verdict.kept else best)
        best = row.best
    assert {row.verdict.kept for row in run.rounds()} == {True, False}


def test_the_test_split_is_opened_at_the_end_only(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    opened_early = []

    class Looker(Watcher):
        def event(self, event: Event) -> None:
            if event.kind != "finish":
                opened_early.extend((folder.path / "evaluations").glob("*-test.json"))

    with open_session(folder, listener=Looker()) as session:
        session.go()
    assert not opened_early and list((folder.path / "evaluations").glob("*-test.json"))


def test_of_the_checkpoints_only_the_last_two_are_kept(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), overrides=["policy=prompt-only"], runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        for answer in (None, APPROVE, APPROVE):
            assert session.go(answer) is not None
            assert kept_in(folder) == 2
    with open_session(folder) as session:  # and from these, a run goes on
        session.go()
    assert folder.outcome() is not None and len(folder.rounds()) == 3
    assert kept_in(folder) == 2


def kept_in(folder: RunFolder) -> int:
    """Checkpoints in the database; none of its other rows belongs to one that is gone."""
    with sqlite3.connect(folder.checkpoints) as database:
        strays = "select count(*) from writes where checkpoint_id not in (select checkpoint_id from checkpoints)"
        assert database.execute(strays).fetchone() == (0,)
        return int(database.execute("select count(*) from checkpoints").fetchone()[0])


def test_a_run_says_what_it_is_before_anything_heavy_is_loaded(tiny_task: TinyTask, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from ui.terminal.live import LiveView\n"
        "def tell(*_):\n"
        "    print([n for n in ('langgraph', 'torch') if n in sys.modules], flush=True)\n"
        "    os._exit(0)\n"
        "LiveView.event = tell\n"
        "from ui.cli import run\n"
        "run(['run', *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", code, str(tiny_task()), "--runs", str(tmp_path / "runs")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr


def test_checkpoints_hold_no_code_that_is_not_ours(tiny_task: TinyTask, tmp_path: Path) -> None:
    """With strict msgpack, a record that LangGraph does not know would come back as a bare dict."""
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        session.go()
    with open_session(folder, supervised=True) as session:
        assert type(session.state["best"]).__name__ == "Candidate"
        assert type(session.state["decision"].move).__name__ in ("EditPrompt", "TrainLora")
        assert type(session.state["diagnosis"].examples[0]).__name__ == "ExampleDiagnosis"


# --- supervised use ---------------------------------------------------------------------------------


def test_nothing_is_done_before_it_is_approved(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        question = session.go()
        assert question is not None and question.number == 1 and question.cost
        assert not folder.rounds()
    with open_session(folder, supervised=True) as session:  # after a kill: the same question
        assert session.question == question
        assert session.go() == question
        assert not folder.rounds()
        session.go(APPROVE)
    assert actions(folder) == [question.decision.move.action]


def test_a_lever_turned_down_is_not_proposed_again_this_round(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        first = session.go()
        second = session.go({"decisions": [{"type": "reject", "message": "Not yet."}]})
        third = session.go({"decisions": [{"type": "reject"}]})
    assert first and second and third
    proposed = [question.decision.move.action for question in (first, second, third)]
    assert {*proposed[:2]} == {"edit_prompt", "train_lora"} and proposed[2] == "stop"
    answers = folder.events().of(PlanAnswered)
    assert [(event.move, event.message) for event in answers] == [
        (first.decision.move, "Not yet."), (second.decision.move, ""),
    ]  # fmt: skip
    assert not folder.rounds()


def test_a_user_can_go_back(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        session.go()
        session.go(instead("edit_prompt"))
        session.go(instead("rollback", to_round=0))
    first = folder.baseline()
    assert first is not None and folder.rounds()[-1].best == first.best
    assert folder.rounds()[-1].decision.by == "user"


def remember(context: RunServices, prompt: Prompt) -> None:
    """Put a prompt into the memory as one that this run has kept."""
    from memory.prompts import Entry

    entry = Entry(
        prompt=prompt, task="mayors", profile=context.memory.profile, model=context.spec.config.model,
        reward=0.5, gain=0.5, kept=True, round=1, run=context.folder.name,
    )  # fmt: skip
    context.memory.remember(entry)


def test_a_run_tries_what_an_earlier_one_kept(tiny_task: TinyTask, tmp_path: Path) -> None:
    """The prompt comes back from Chroma on disk, is scored, and stands in the baseline's row."""
    prompt = Prompt(system="Answer the question, beginning with the word ANSWER.")
    with open_session(new_run(tiny_task(), runs=tmp_path / "runs")) as session:
        remember(session.services, prompt)
    second = RunFolder.open(nesylora.adapt(tiny_task(), runs=tmp_path / "runs").run)
    start = second.baseline()
    assert start is not None
    assert prompt.id in [proposal.prompt for proposal in start.recalled]


def test_a_prompt_that_is_too_long_is_not_recalled(tiny_task: TinyTask, tmp_path: Path) -> None:
    short, long = Prompt(system="ANSWER first."), Prompt(system="Begin with ANSWER, please.")
    task = tiny_task(edit={"max_length": 30}, prompt={"system": "Answer."})  # the template counts, too
    with open_session(new_run(task, runs=tmp_path / "runs")) as session:
        remember(session.services, short)
        remember(session.services, long)
        assert [hit.entry.prompt for hit in session.services.memory.recall()] == [short]


def test_a_prompt_that_shows_a_held_out_row_is_not_recalled(tiny_task: TinyTask, tmp_path: Path) -> None:
    leaky = Prompt(demos=(Demo(question="Name the mayor of Benn.", answer="ANSWER: Corolt"),))
    with open_session(new_run(tiny_task(), runs=tmp_path / "runs")) as session:
        remember(session.services, leaky)
        assert session.services.memory.recall() == []


@pytest.mark.parametrize(
    ("leaky", "found"),
    [
        (Prompt(system="The mayor of Benn is Corolt."), "the answer of train:3"),
        (Prompt(system="Answer.", template="Not: name the mayor of Mirr. {question}"), "the question of validation:4"),
        (Prompt(system="Answer.", template="Tallisk: its mayor? Gallunese. {question}"), ""),
        (Prompt(system="Tell us at last of Zorrow: who is the mayor of that place?"), "a part of test:1"),
    ],
)
def test_a_prompt_that_gives_a_row_away_in_words_is_not_recalled(
    tiny_task: TinyTask, tmp_path: Path, leaky: Prompt, found: str
) -> None:
    """Nor where the row is a test row: it may have been a train row of the run that the prompt is from."""
    task, sound = tiny_task(), Prompt(system="Begin with the word ANSWER.")
    row = {"question": "Tell us at last of Zorrow: who is the mayor of that place?", "answer": "Zurrow"}
    (task / "test.jsonl").write_text(json.dumps(row) + "\n")
    with open_session(new_run(task, runs=tmp_path / "runs")) as session:
        remember(session.services, leaky)
        remember(session.services, sound)
        recalled = [hit.entry.prompt for hit in session.services.memory.recall()]
        notes = [note.text for note in session.services.folder.events().of(Note)]
    assert sound in recalled and (leaky in recalled) == (not found)
    assert found in "".join(notes) and bool(notes) == bool(found)


def test_the_bare_loop_decides_as_the_graph_does(tiny_task: TinyTask, tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    from loop import adapt

    _, rounds = adapt(tiny_task(), tmp_path / "loop")
    run = RunFolder.open(nesylora.adapt(tiny_task(), runs=tmp_path / "runs").run)
    assert [row.decision.move.action for row in rounds] == actions(run)


def test_langgraph_tools_can_open_the_graph() -> None:
    """They draw it, and ask for the JSON schemas of what it takes and gives."""
    file, name = json.loads((ROOT / "langgraph.json").read_text())["graphs"]["adapt"].split(":")
    assert (ROOT / file).resolve() == Path(nesylora.__file__).resolve()
    graph = asyncio.run(getattr(nesylora, name)())
    nodes = set(graph.get_graph().nodes)
    assert {"baseline", "observe", "plan", "approve", "train_lora", "edit_prompt", "judge", "remember"} <= nodes
    assert {"run", "task", "runs", "supervised"} <= set(graph.get_context_jsonschema()["properties"])
    assert {"run", "task", "overrides", "budget"} <= set(graph.get_input_jsonschema()["properties"])
    wanted = {"best", "outcome", "prompt", "adapter", "test", "report"}
    assert wanted <= set(graph.get_output_jsonschema()["properties"])


def test_a_memory_that_was_lost_is_rebuilt_from_the_runs(tiny_task: TinyTask, tmp_path: Path) -> None:
    import shutil

    task, root = tiny_task(**LEARNABLE), tmp_path / "runs"
    first = RunFolder.open(nesylora.adapt(task, overrides=["policy=prompt-only"], runs=root).run)
    shutil.rmtree(root / "memory")
    damaged = root / "damaged"
    shutil.copytree(first.path, damaged)
    next((damaged / "remembered").iterdir()).write_text("{")
    with open_session(first) as session, session.services.memory.open() as memory:
        assert memory.count() == len(list((first.path / "remembered").glob("*.json"))) > 0
    assert "Run damaged is passed over" in first.events().of(Note)[-2].text


def test_a_run_left_in_chat_is_gone_on_with_by_resume(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        assert session.go() is not None
    with open_session(folder) as session:
        assert session.go() is None
    assert folder.outcome() is not None


def test_editors_learn_from_train_rows_only(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), overrides=["policy=prompt-only"], runs=tmp_path / "runs")
    seen: list[str] = []
    with open_session(folder) as session:
        propose = session.services.editor.propose
        session.services.editor.propose = lambda prompt, scores, *rest: (
            seen.extend(score.example for score in scores.scores) or propose(prompt, scores, *rest)
        )
        session.go()
    assert seen and all(name.startswith("train:") for name in seen)


def test_the_graph_alone_makes_its_run_from_a_task(tiny_task: TinyTask, tmp_path: Path) -> None:
    """As LangGraph's own server invokes it: plain values for the context, and a thread id."""
    from langgraph.checkpoint.memory import InMemorySaver

    from graphs.adapt import build_graph

    task = tiny_task(budget={"rounds": 1})
    build_graph(InMemorySaver()).invoke(
        {"number": 0},
        {"configurable": {"thread_id": "abc"}},
        context=Context(task=str(task), runs=str(tmp_path / "runs")),
    )
    assert RunFolder.open(tmp_path / "runs" / "thread-abc").outcome() is not None
