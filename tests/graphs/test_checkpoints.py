"""Checkpoints that are damaged, held by another, or of other code: a run goes on from what is whole, and says so."""

import base64
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, get_args, get_type_hints

import ormsgpack
import pytest
import yaml
from pydantic import BaseModel

import graphs.adapt
import nesylora
from agent.errors import BadInput, Busy, NesyLoraError
from agent.policy.planner_tools import Reasoned
from agent.records.actions import Decision, EditPrompt
from agent.records.base import FORMAT, Record
from agent.records.events import Event, Note
from agent.records.examples import Candidate
from agent.records.rounds import Spend
from graphs import checkpoints
from graphs.approval import APPROVE
from graphs.context import new_run
from graphs.serializer import RECORDS, RecordSerializer
from graphs.session import open_session
from graphs.state import State
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask
from ui.cli import run as command

ROOT = Path(__file__).parents[2]
SETTINGS = ["policy=prompt-only", "budget.rounds=2"]


def outline(run: RunFolder) -> list[object]:
    """What a run decided and measured, without what depends on the clock."""
    return [(row.number, row.decision.move, row.trial.candidate, row.verdict, row.best) for row in run.rounds()]


def notes(run: RunFolder) -> str:
    return "\n".join(note.text for note in run.events().of(Note))


def change(run: RunFolder, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(run.checkpoints)) as database, database:
        database.execute(statement, values)


@pytest.fixture
def task(tiny_task: TinyTask) -> Path:
    return tiny_task()


@pytest.fixture
def whole(task: Path, tmp_path: Path) -> RunFolder:
    """The run as it ends if nothing happens to it."""
    return RunFolder.open(nesylora.adapt(task, overrides=SETTINGS, runs=tmp_path / "whole").run)


@pytest.fixture
def waiting(task: Path, tmp_path: Path) -> RunFolder:
    """The same run after its first round, with a question about the second."""
    folder = new_run(task, SETTINGS, tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        session.go()
        assert session.go(APPROVE) is not None
    assert len(folder.rounds()) == 1
    return folder


NEWEST = "WHERE checkpoint_id = (SELECT max(checkpoint_id) FROM checkpoints)"


def tear_newest(run: RunFolder) -> None:
    change(run, f"UPDATE checkpoints SET checkpoint = substr(checkpoint, 1, length(checkpoint) / 2) {NEWEST}")


def garble_newest(run: RunFolder) -> None:
    change(run, f"UPDATE checkpoints SET checkpoint = ? {NEWEST}", b"\x93\x01\x02\x03")


def garble_its_writes(run: RunFolder) -> None:
    change(run, f"UPDATE writes SET value = ? {NEWEST}", b"\xc1\xc1")


def garble_its_metadata(run: RunFolder) -> None:
    change(run, f"UPDATE checkpoints SET metadata = ? {NEWEST}", b"{")


def garble_all(run: RunFolder) -> None:
    change(run, "UPDATE checkpoints SET checkpoint = ?", b"\xc1")


def overwrite_file(run: RunFolder) -> None:
    run.checkpoints.write_bytes(b"not a database " * 1000)


def overwrite_pages(run: RunFolder) -> None:
    with closing(sqlite3.connect(run.checkpoints)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(run.checkpoints.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    run.checkpoints.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (tear_newest, "The run goes on from the one before"),
        (garble_newest, "The run goes on from the one before"),
        (garble_its_writes, "The run goes on from the one before"),
        (garble_its_metadata, "The run goes on from the one before"),
        (garble_all, "The run goes on after its last complete round"),
        (overwrite_file, "checkpoints.sqlite-corrupt-"),
        (overwrite_pages, "checkpoints.sqlite-corrupt-"),
    ],
)
def test_damaged_checkpoints_are_told_of_and_the_run_ends_as_it_would_have(
    waiting: RunFolder, whole: RunFolder, damage: Callable[[RunFolder], None], said: str
) -> None:
    damage(waiting)
    with open_session(waiting) as session:
        session.go()
    assert said in notes(waiting)
    assert outline(waiting) == outline(whole) and waiting.outcome() is not None
    assert waiting.rounds()[-1].spend.forward_tokens >= whole.rounds()[-1].spend.forward_tokens


def test_the_question_is_asked_again_where_its_checkpoint_was_damaged(waiting: RunFolder) -> None:
    with open_session(waiting, supervised=True) as session:
        asked = session.question
    tear_newest(waiting)
    with open_session(waiting, supervised=True) as session:
        assert session.question is None
        assert session.go() == asked
    assert len(waiting.rounds()) == 1


def test_a_clock_that_was_set_back_makes_no_old_checkpoint_the_newest(
    waiting: RunFolder, whole: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangGraph takes the checkpoint with the largest id for the newest, and ids are times."""
    yesterday = time.time() - 86_400
    monkeypatch.setattr(time, "time", lambda: yesterday)
    monkeypatch.setattr(time, "time_ns", lambda: int(yesterday * 1e9))
    monkeypatch.setattr("langgraph.checkpoint.base.id._last_v6_timestamp", None)  # as in a new process
    with open_session(waiting, supervised=True) as session:
        assert session.go() is not None
    assert "is of a later time than the clock shows" in notes(waiting)
    with open_session(waiting, supervised=True) as session:  # as from any other checkpoint
        assert session.question is not None
        while session.question:
            session.go(APPROVE)
    assert notes(waiting).count("clock") == 1 and outline(waiting) == outline(whole)


def test_a_checkpoint_that_the_ledger_knows_nothing_of_is_not_gone_on_from(
    waiting: RunFolder, whole: RunFolder
) -> None:
    """As after the folder was put back from a copy in part."""
    ledger = waiting.path / "ledger.jsonl"
    ledger.write_text(ledger.read_text().splitlines(keepends=True)[0])
    (waiting.path / "events.jsonl").unlink()
    with open_session(waiting) as session:
        session.go()
    assert "it counts 1 rounds, the ledger 0" in notes(waiting) and outline(waiting) == outline(whole)


# --- other code ------------------------------------------------------------------------------------


def of_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph as code would build it in which the node `approve` is called `consent`."""
    source = (
        Path(graphs.adapt.__file__).read_text().replace("plan, approve, ", "plan, ").replace('"approve"', '"consent"')
    )
    node = '    graph.add_node("consent", as_node(approve, report))\n    graph.add_edge(START'
    other: dict[str, Any] = {"__name__": "other"}
    exec(source.replace("    graph.add_edge(START", node, 1), other)
    monkeypatch.setattr("graphs.adapt.build_graph", other["build_graph"])


def test_a_run_that_waits_at_a_step_of_other_code_goes_on_after_its_last_round(
    task: Path, whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_run(task, SETTINGS, tmp_path / "runs")
    with monkeypatch.context() as patch, open_session(folder, supervised=True) as session:
        of_other_code(patch)
        session.go()
        session.go(APPROVE)
    assert command(["resume", folder.name, "--runs", str(tmp_path / "runs")]) in (0, 4, 5)
    assert "it waits at a step that there is no more" in " ".join(capsys.readouterr().out.split())
    assert outline(folder) == outline(whole) and folder.outcome() is not None


WRITTEN_BY_0_1 = (
    "g6RiZXN0x1cFlK1hZ2VudC5yZWNvcmRzqUNhbmRpZGF0ZYKmcHJvbXB0rGFhYWFhYWFhYWFhYadhZGFwdGVyrGJiYmJiYmJiYmJiYrNtb2RlbF92"
    "YWxpZGF0ZV9qc29uqGRlY2lzaW9ux5kFlKthZ2VudC5tb3Zlc6hEZWNpc2lvboWkbW92ZYOmYWN0aW9uq2VkaXRfcHJvbXB0pXBhcnRzk6ZzeXN0"
    "ZW2lZGVtb3OpcXVlc3Rpb25zqGZhaWx1cmVzo2FueaZyZWFzb26jU28up251bWJlcnOAomJ5pXJ1bGVzq3J1bGVzX3dvdWxkwLNtb2RlbF92YWxp"
    "ZGF0ZV9qc29upXNwZW5kx4AFlKxhZ2VudC5yb3VuZHOlU3BlbmSGp3NlY29uZHPLP/gAAAAAAACsdHJhaW5fdG9rZW5zALBnZW5lcmF0ZWRfdG9r"
    "ZW5zAKtyZWFkX3Rva2VucwCqbGxtX3Rva2VucwCjdXNkywAAAAAAAAAAs21vZGVsX3ZhbGlkYXRlX2pzb24="
)
"""A candidate, a decision and a spend as the version wrote them that had them in agent.records, .moves and .rounds."""


def test_records_of_the_version_before_the_modules_moved_are_read() -> None:
    assert RecordSerializer().loads_typed(("msgpack", base64.b64decode(WRITTEN_BY_0_1))) == {
        "best": Candidate(prompt="a" * 12, adapter="b" * 12),
        "decision": Decision(move=EditPrompt(parts=("system", "demos", "questions")), reason="So."),
        "spend": Spend(seconds=1.5),
    }


def test_every_record_of_the_state_may_be_read_and_nothing_else() -> None:
    hints = get_type_hints(State)
    held = {kind for hint in hints.values() for kind in (hint, *get_args(hint)) if isinstance(kind, type)}
    assert {kind for kind in held if issubclass(kind, Record)} == set(RECORDS)
    serializer = RecordSerializer()
    foreign = serializer.dumps_typed(Foreign(secret="x"))
    assert serializer.loads_typed(foreign) == {"secret": "x"}, "its class is not imported"
    open_to_it = serializer.with_msgpack_allowlist([Foreign])
    assert open_to_it.loads_typed(foreign) == Foreign(secret="x")


def within(kind: Any) -> set[type[Record]]:
    """The records of a type and of all that its fields may hold."""
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        return set().union(*map(within, get_args(kind)))
    return {kind}.union(*(within(field.annotation) for field in kind.model_fields.values()))


def test_what_a_checkpoint_holds_it_holds_whole() -> None:
    """LangGraph builds a record from its `model_dump()`: what that leaves out or renames comes back as its default."""
    kept = set().union(*map(within, RECORDS))
    assert len(kept) > len(RECORDS), "records within records are looked at, too"
    for record in kept:
        for name, field in record.model_fields.items():
            assert not (field.alias or field.validation_alias or field.exclude), f"{record.__name__}.{name} is lost"
        others = [kind for kind in record.__subclasses__() if not issubclass(kind, Reasoned)]  # an LLM's, made plain
        others = [kind for kind in others if not kind.__module__.startswith("ui.")]  # a face's, made plain, too
        assert not others, f"a field of {record.__name__} is stored without what these add: {others}"


class Foreign(BaseModel):
    """A class of a user's own graph."""

    secret: str


def write_as_before(run: RunFolder) -> None:
    """The checkpoints as the version wrote them that had all records in three modules."""
    former = {
        "actions": "agent.moves",
        "rounds": "agent.rounds",
        "examples": "agent.records",
        "signal": "agent.records",
    }

    def renamed(code: int, data: bytes) -> ormsgpack.Ext:
        module, *rest = ormsgpack.unpackb(data, ext_hook=renamed)
        return ormsgpack.Ext(code, ormsgpack.packb([former.get(module.rpartition(".")[2], module), *rest]))

    with closing(sqlite3.connect(run.checkpoints)) as database, database:
        for table, column in (("checkpoints", "checkpoint"), ("writes", "value")):
            rows = database.execute(f"SELECT rowid, {column} FROM {table} WHERE type = 'msgpack'").fetchall()
            for row, value in rows:
                packed = ormsgpack.packb(ormsgpack.unpackb(value, ext_hook=renamed))
                database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (packed, row))


def test_a_run_of_before_the_modules_moved_goes_on_within_its_round(waiting: RunFolder, whole: RunFolder) -> None:
    with open_session(waiting, supervised=True) as session:
        asked = session.question
    write_as_before(waiting)
    with closing(sqlite3.connect(waiting.checkpoints)) as database:
        [blob] = database.execute(f"SELECT checkpoint FROM checkpoints {NEWEST}").fetchone()
    assert b"agent.moves" in blob and b"agent.records.actions" not in blob
    with open_session(waiting, supervised=True) as session:
        assert asked is not None and session.question == asked
        assert session.go(APPROVE) is not None
    with open_session(waiting) as session:
        session.go()
    assert "The run goes on" not in notes(waiting) and outline(waiting) == outline(whole)


def test_an_open_question_of_an_earlier_version_is_answered(waiting: RunFolder, whole: RunFolder) -> None:
    """It asked with a cost in words, and took other answers."""

    def as_before(code: int, data: bytes) -> ormsgpack.Ext:
        module, name, given, *rest = ormsgpack.unpackb(data, ext_hook=as_before)
        if name == "Interrupt":
            kept = {key: given["value"][key] for key in ("number", "decision")}
            given = given | {"value": kept | {"cost": "up to 5 prompts on up to 8 rows each"}}
        return ormsgpack.Ext(code, ormsgpack.packb([module, name, given, *rest]))

    with closing(sqlite3.connect(waiting.checkpoints)) as database, database:
        for row, value in database.execute(
            "SELECT rowid, value FROM writes WHERE channel = '__interrupt__'"
        ).fetchall():
            packed = ormsgpack.packb(ormsgpack.unpackb(value, ext_hook=as_before))
            database.execute("UPDATE writes SET value = ? WHERE rowid = ?", (packed, row))
    with open_session(waiting, supervised=True) as session:
        question = session.question
        assert question and question.cost == "up to 5 prompts on up to 8 rows each" and not question.action_requests
        session.go(APPROVE)
    assert len(waiting.rounds()) == 2 and outline(waiting) == outline(whole)


def rename_fields(database: sqlite3.Connection) -> None:
    """As a version would have written them whose decisions and verdicts had a `motive`."""
    for row, value in database.execute("SELECT rowid, checkpoint FROM checkpoints").fetchall():
        values = value.replace(b"reason", b"motive"), row
        database.execute("UPDATE checkpoints SET checkpoint = ? WHERE rowid = ?", values)
    database.commit()


def test_a_record_whose_field_had_another_name_is_not_built_half(waiting: RunFolder, whole: RunFolder) -> None:
    with closing(sqlite3.connect(waiting.checkpoints)) as database:
        rename_fields(database)
    with open_session(waiting) as session:
        session.go()
    assert "another version of NeSyLoRA: it holds what is no record now (decision" in notes(waiting)
    assert outline(waiting) == outline(whole)


def test_the_graph_alone_refuses_records_of_another_version(task: Path, tmp_path: Path) -> None:
    """Where the checkpointer is a client's own, nobody looks before."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    folder = new_run(task, SETTINGS, tmp_path / "runs")
    config: Any = {"configurable": {"thread_id": "a"}}
    context = {"run": str(folder.path), "supervised": True}
    with SqliteSaver.from_conn_string(str(tmp_path / "own.sqlite")) as saver:
        graph = graphs.adapt.build_graph(saver)
        graph.invoke({"number": 0}, config, context=context)
        rename_fields(saver.conn)
        with pytest.raises(BadInput, match=r"written by another version of NeSyLoRA .decision"):
            graph.invoke(None, config, context=context)
        ended = graph.invoke({"number": 0}, {"configurable": {"thread_id": "new"}, "recursion_limit": 99},
                             context={"run": str(folder.path)})  # fmt: skip
    assert ended["outcome"] == folder.outcome()


def test_a_resume_that_ends_without_an_end_is_no_success(
    waiting: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        change(waiting, "DELETE FROM checkpoints")

    monkeypatch.setattr(graphs.adapt.Adaptation, "invoke", lost)
    assert command(["resume", waiting.name, "--runs", str(waiting.path.parent)]) == 1
    assert "stopped without an end and without a question" in " ".join(capsys.readouterr().err.split())


def about(run: RunFolder, **changes: Any) -> RunFolder:
    """The run, with its run.json changed; a key that is to be None is taken out."""
    file = run.path / "run.json"
    fields = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))
    return RunFolder.open(run.path)


@pytest.mark.parametrize("format", [None, 1])
def test_a_run_of_an_earlier_format_goes_on(waiting: RunFolder, whole: RunFolder, format: int | None) -> None:
    old = about(waiting, format=format)
    assert old.about.format == (format or 0) < FORMAT == whole.about.format
    with open_session(old) as session:
        session.go()
    assert outline(old) == outline(whole)


def test_a_run_from_before_some_settings_is_told_which_hold_now(waiting: RunFolder) -> None:
    settings = yaml.safe_load(waiting.task_file.read_text())
    del settings["gate"]["drift"], settings["lora"]["replay"]
    waiting.task_file.write_text(yaml.safe_dump(settings))
    with open_session(waiting) as session:
        [told] = [text for text in session.services.spec.warnings if "before these settings" in text]
    assert "defaults: gate.drift: 0.3, lora.replay: 0.25. Set them there" in told


def test_a_run_with_all_settings_is_told_nothing(waiting: RunFolder) -> None:
    with open_session(waiting) as session:
        assert not [text for text in session.services.spec.warnings if "before these settings" in text]


def test_a_run_of_a_later_version_says_so(waiting: RunFolder) -> None:
    later = about(waiting, format=FORMAT + 1, version="9.9", since_then="another field")
    with pytest.raises(BadInput, match=rf"NeSyLoRA \(9\.9, format {FORMAT + 1}; this is"), open_session(later):
        pass


def test_a_ledger_of_an_earlier_version_is_not_called_damaged_only(waiting: RunFolder) -> None:
    ledger = waiting.path / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"reason"', '"motive"'))
    with (
        pytest.raises(
            BadInput,
            match=r"(?s)begun by another version of NeSyLoRA .0\.0\.1.*which may be why: .*ledger\.jsonl, line 2",
        ),
        open_session(about(waiting, format=None, version="0.0.1")),
    ):
        pass
    with (
        pytest.raises(BadInput, match=r"(?s)^(?!.*another version).*ledger\.jsonl, line 2"),
        open_session(about(waiting, format=FORMAT)),
    ):
        pass


def test_settings_and_rows_that_an_earlier_version_read_otherwise_are_told_with_it(
    waiting: RunFolder,
) -> None:
    old = about(waiting, format=None, version="0.0.1", digest="0" * 12)
    with (
        pytest.raises(BadInput, match=r"(?s)begun by another version of NeSyLoRA .0\.0\.1.*have changed"),
        open_session(old) as session,
    ):
        session.go()


# --- held by another process -----------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SOON", 0.05)
    monkeypatch.setattr(checkpoints, "PATIENCE", 0.3)


class Releasing:
    """A listener that lets go of the file once it is told that one waits for it."""

    def __init__(self, holder: sqlite3.Connection) -> None:
        self._holder = holder

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...

    def event(self, event: Event) -> None:
        if isinstance(event, Note) and "Waiting for another process" in event.text:
            self._holder.rollback()


def hold(run: RunFolder) -> sqlite3.Connection:
    holder = sqlite3.connect(run.checkpoints, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    return holder


@pytest.mark.parametrize("begun", [True, False])
def test_checkpoints_that_another_process_holds_are_waited_for(
    request: pytest.FixtureRequest, task: Path, tmp_path: Path, soon: None, begun: bool
) -> None:
    folder = request.getfixturevalue("waiting") if begun else new_run(task, SETTINGS, tmp_path / "runs")
    with closing(hold(folder)) as holder, open_session(folder, listener=Releasing(holder)) as session:
        session.go()
    assert folder.outcome() is not None and "checkpoints.sqlite" in notes(folder)


@pytest.mark.parametrize("begun", [True, False])
def test_held_for_longer_they_are_a_sentence_and_an_exit_code(
    request: pytest.FixtureRequest, task: Path, tmp_path: Path, soon: None, begun: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = request.getfixturevalue("waiting") if begun else new_run(task, SETTINGS, tmp_path / "runs")
    with closing(hold(folder)):
        assert command(["resume", folder.name, "--runs", str(folder.path.parent)]) == Busy.exit_code
        said = " ".join(capsys.readouterr().err.split())
        assert "held by another process" in said and "go on with resume" in said
    with open_session(folder) as session:
        session.go()
    assert folder.outcome() is not None


def test_a_checkpoint_file_that_cannot_be_written_is_a_sentence(waiting: RunFolder) -> None:
    change(waiting, "CREATE TRIGGER full BEFORE INSERT ON checkpoints BEGIN SELECT raise(ABORT, 'no room'); END")
    with (
        pytest.raises(NesyLoraError, match=r"checkpoints\.sqlite cannot be used: no room"),
        open_session(waiting) as session,
    ):
        session.go()


def test_a_copied_graph_reads_its_records(task: Path, tmp_path: Path) -> None:
    """LangGraph's server copies the graph for every request; in strict mode, records would come back as dicts."""
    code = """
import sys
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from graphs.adapt import build_graph
from graphs.approval import APPROVE
given = {"task": sys.argv[1], "runs": sys.argv[2], "budget": {"rounds": 1}, "supervised": True}
config, saver = {"configurable": {"thread_id": "a"}}, InMemorySaver()
for request in (given, Command(resume=APPROVE), Command(resume=APPROVE)):
    ended = build_graph().copy({"checkpointer": saver}).invoke(request, config)
print(type(ended["outcome"]).__name__)
"""
    command = [sys.executable, "-c", code, str(task), str(tmp_path / "runs")]
    answer = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}, capture_output=True, text=True
    )
    assert answer.stdout.strip() == "Outcome", answer.stderr
