"""Runs in processes of their own, followed and steered from others: by the command line, over a real socket."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.errors import BadInput, Busy, NesyLoraError
from agent.records.events import Event
from agent.records.looks import TryPrompt
from graphs.approval import APPROVE
from graphs.context import new_run
from graphs.control import process, wire
from graphs.control.client import attach, live, start_worker, status_of, steer
from graphs.control.driver import Driver, drive
from graphs.control.socket import Server, served, taken
from graphs.control.steering import RunStatus, Steering
from graphs.session import Session
from memory.run.folder import RunFolder
from tests.fixtures.command_line import run as command
from tests.fixtures.learnable import TinyTask
from ui.control.follow import follow
from ui.control.signals import Ending
from ui.control.work import refuse_second, work

ROOT = Path(__file__).parents[3]
PATIENCE = 600.0  # seconds; a test that waits so long fails
LONG = ["policy=lora-only", "budget.rounds=2", "lora.epochs=20", "lora.batch_size=1", "lora.enough=0"]  # 80 steps


def nesylora(*arguments: str | Path) -> "subprocess.Popen[str]":
    line = [sys.executable, "nesylora.py", *map(str, arguments)]
    return subprocess.Popen(line, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def until(steering: Steering, ok: Callable[[RunStatus], bool]) -> RunStatus:
    """The first status that is as wanted."""
    status, end = steering.status(), time.monotonic() + PATIENCE
    while not ok(status):
        assert time.monotonic() < end, f"nothing of the kind: {status}"
        status = steering.status(status.version, 5.0)
    return status


def until_reaped(pid: int) -> None:
    """Until a process that this one has started is no zombie either."""
    end = time.monotonic() + PATIENCE
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.05)
        raise AssertionError(f"process {pid} is still there")


def training(status: RunStatus) -> bool:
    return status.step is not None and status.step.what == "training LoRA"


def paused(steering: Steering) -> None:
    """Until the run stands still; it has begun then, and tells so whoever attaches."""
    steering.pause()
    until(steering, lambda status: status.condition == "paused")


def reached(folder: RunFolder) -> Steering:
    """The run, once a process that was just started can be reached."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if remote := live(folder):
            return remote
        time.sleep(0.05)
    raise AssertionError("nobody can be reached")


@pytest.fixture
def folder(tiny_task: TinyTask, tmp_path: Path) -> Iterator[RunFolder]:
    """A run that trains for a while; what works on it is stopped in the end."""
    made = new_run(tiny_task(), LONG, tmp_path / "runs")
    yield made
    if remote := live(made):
        pid = remote.status().pid
        if pid is not None:
            with suppress(ProcessLookupError):  # it has ended just now
                os.kill(pid, signal.SIGKILL)


def lines(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "ledger.jsonl").read_text().splitlines()]


def test_a_run_in_the_background_is_paused_extended_and_cancelled_by_two_clients(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    first = start_worker(folder)
    second = attach(folder)
    status = until(first, training)
    assert status.pid and status.pid != os.getpid() and second.status().pid == status.pid
    assert second.pause(now=True).run == folder.name
    until(first, lambda status: status.condition == "paused")
    runs = ["--runs", str(folder.path.parent)]
    assert command(["runs", *runs]) == 0 and "paused" in capsys.readouterr().out
    assert command(["resume", folder.name, *runs]) == Busy.exit_code
    refused = capsys.readouterr().err
    assert f"Process {status.pid} works on run {folder.name}" in refused and "nesylora attach" in refused
    assert command(["ctl", "extend", "--rounds", "3", "--target", "0.5", *runs]) == 0
    assert "of 3 done" in capsys.readouterr().out
    assert command(["ctl", "cancel", *runs]) == 0
    assert command(["ctl", "resume", "--json", *runs]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run"] == folder.name
    until(second, lambda status: status.rounds >= 1)
    assert folder.rounds()[0].trial.cancelled
    until(first, lambda status: status.rounds == 1 and training(status))
    assert command(["ctl", "stop", *runs]) == 0
    assert "to be resumed" in " ".join(capsys.readouterr().out.split()) or status_of(folder).condition == "stopped"
    assert process.noted(folder) is None and live(folder) is None
    until_reaped(status.pid)
    assert [row["kind"] for row in lines(folder)] == ["baseline", "extension", "round"]
    with pytest.raises(NesyLoraError, match="has let go of run"):
        first.pause()
    with pytest.raises(BadInput, match="nesylora resume"):
        attach(folder)


def test_a_worker_that_is_killed_under_its_clients_is_told_from_one_that_has_ended(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    steering = start_worker(folder)
    paused(steering)  # until the follower has come
    follower = nesylora("attach", folder.name, "--runs", folder.path.parent)
    assert follower.stdout is not None and folder.name in follower.stdout.readline()
    steering.go_on()
    pid = until(steering, training).pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    said, _ = follower.communicate(timeout=PATIENCE)
    assert follower.returncode == 1
    assert "ended without a word (killed, or out of memory)" in said and f"nesylora resume {folder.path}" in said
    with pytest.raises(NesyLoraError, match="ended without a word"):
        steering.cancel_step()
    left = steering.status()
    assert left.condition == "stopped" and "ended without a word" in left.trouble
    assert command(["runs", "--runs", str(folder.path.parent)]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert "to be" in listed and "killed" in listed
    noted = process.noted(folder)
    assert noted and Path(noted.socket).exists()
    folder.cancel(1)  # as if the kill had come right behind the user's word
    again = steer(folder, supervised=False)  # another process takes it up
    assert until(again, lambda status: status.rounds == 1).pid != pid
    assert folder.rounds()[0].trial.cancelled and not Path(noted.socket).exists()


def test_detached_it_is_followed_and_left_and_goes_on(folder: RunFolder) -> None:
    source = folder.about.source
    root = folder.path.parent
    settings = [part for setting in LONG for part in ("--set", setting)]
    started = nesylora("run", source, "--runs", root, "--name", "away", "--detach", *settings)
    said, error = started.communicate(timeout=PATIENCE)
    assert started.returncode == 0, error
    assert "Run away works in the background" in said
    away = RunFolder.open(root / "away")
    steering = attach(away)
    paused(steering)  # until the watchers have come
    watcher = nesylora("attach", "away", "--runs", root)
    assert watcher.stdout is not None and "away" in watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    rest, _ = watcher.communicate(timeout=PATIENCE)
    assert watcher.returncode == 0 and "Detached from run away, which goes on" in rest
    again = nesylora("attach", "away", "--json", "--runs", root)
    assert again.stdout is not None and json.loads(first := again.stdout.readline())["kind"] == "run", first
    steering.go_on()
    events, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 5 and json.loads(events.splitlines()[-1])["kind"] == "finish"
    assert away.outcome() is not None and len(away.rounds()) == 2
    assert "round 1" in (away.path / "console.log").read_text()
    assert process.noted(away) is None


def test_a_follower_that_a_signal_ends_says_so_by_its_exit_code_and_the_run_stays(folder: RunFolder) -> None:
    steering = start_worker(folder)
    paused(steering)
    line = ("attach", folder.name, "--runs", folder.path.parent)
    watchers = [nesylora(*line, "--json"), nesylora(*line), nesylora(*line)]
    for watcher in watchers:
        assert watcher.stdout is not None and folder.name in watcher.stdout.readline()
    for watcher, number, code in zip(watchers[:2], (signal.SIGTERM, signal.SIGHUP), (143, 129), strict=True):
        watcher.send_signal(number)
        said, error = watcher.communicate(timeout=PATIENCE)
        assert watcher.returncode == code and f"Run {folder.name} goes on without it" in error, said
    assert steering.status().condition in ("working", "paused")
    steering.leave()
    watchers[-1].communicate(timeout=PATIENCE)
    assert watchers[-1].returncode == 143, "the run was told to stop"


def test_a_follower_tells_a_run_that_was_left_from_one_that_failed_while_its_process_is_still_there(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.control.follow.LETS_GO", 0.0)
    noted: list[process.Process | None] = []
    close = Server.close
    monkeypatch.setattr(Server, "close", lambda server: (noted.append(process.noted(folder)), close(server)))
    with drive(folder) as driver:
        driver.leave()
        driver.wait(PATIENCE)
        assert follow(folder, json=True) == 143
    with pytest.raises(RuntimeError, match="odd"), drive(folder) as driver:
        driver.error = RuntimeError("odd")
        monkeypatch.setattr(driver, "_trouble", "odd")
        driver.leave()
        driver.wait(PATIENCE)
    assert noted[0] is None, "who finds the process gone must not read that it was killed"
    assert noted[1] and noted[1].trouble == "odd" and not noted[1].socket


class Gate:
    """A place in the process of a run at which it stands until it is let go."""

    def __init__(self) -> None:
        self.reached, self.free = threading.Event(), threading.Event()

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def held(*values: Any, **named: Any) -> Any:
            self.reached.set()
            assert self.free.wait(PATIENCE)
            return call(*values, **named)

        return held


@contextmanager
def standing(folder: RunFolder, gate: Gate) -> Iterator[None]:
    """A process (this one) that works on the run in another thread, asking, and stands at the gate."""
    leaves = threading.Event()

    def works() -> None:
        with drive(folder, supervised=True):
            assert leaves.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        worked = pool.submit(works)
        if gate.free.is_set():  # it stands at its end
            until(reached(folder), lambda status: status.condition == "waiting")
            gate.free.clear()
            gate.reached.clear()
            leaves.set()
        assert gate.reached.wait(PATIENCE)
        try:
            yield
        finally:
            gate.free.set()
            leaves.set()
            worked.result(PATIENCE)


def waits(call: "Future[Any]") -> bool:
    """Whether it has not come back in a moment."""
    return not wait([call], 0.3).done


def test_who_comes_while_a_process_takes_a_run_waits_until_it_can_be_reached(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr("graphs.control.driver.Driver.__init__", gate.before(Driver.__init__))
    monkeypatch.setattr("graphs.control.client.NOTES", 0.0)
    with ThreadPoolExecutor() as pool, standing(folder, gate):
        assert status_of(folder).condition == "working" and not status_of(folder).trouble
        calls = [pool.submit(call, folder) for call in (steer, attach)]
        assert all(map(waits, calls))
        gate.free.set()
        assert {call.result(PATIENCE).status().pid for call in calls} == {os.getpid()}


def test_who_comes_while_a_process_lets_go_of_a_run_waits_until_it_is_free(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    gate.free.set()
    monkeypatch.setattr(Session, "close", gate.before(Session.close))
    monkeypatch.setattr("graphs.control.client.NOTES", 0.0)
    with ThreadPoolExecutor() as pool:
        with standing(folder, gate):
            assert live(folder) is None and process.noted(folder) is None
            assert status_of(folder).condition == "stopped" and not status_of(folder).trouble
            attached, resumed = pool.submit(attach, folder), pool.submit(refuse_second, folder)
            assert waits(attached) and waits(resumed)
        with pytest.raises(BadInput, match="No process works on run"):
            attached.result(PATIENCE)
        resumed.result(PATIENCE)


def test_who_has_a_process_leave_hears_that_it_does(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = wire.answered

    def slowly(line: bytes, steering: Steering) -> bytes:
        answer = answered(line, steering)
        if b'"leave"' in line:
            time.sleep(0.5)  # meanwhile the process ends
        return answer

    monkeypatch.setattr(wire, "answered", slowly)
    with ThreadPoolExecutor() as pool, drive(folder, supervised=True) as driver:
        remote = live(folder)
        assert remote
        left = pool.submit(remote.leave)
        assert driver.wait(PATIENCE)
    assert left.result(PATIENCE).pid == os.getpid()
    assert remote.leave().condition == "stopped", "it has left already"


def test_who_sees_that_a_run_has_stopped_finds_its_last_event(folder: RunFolder) -> None:
    seen: list[str] = []

    class Listens:
        def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...

        def event(self, event: Event) -> None:
            if event.kind == "stopped":
                seen.append(driver.condition)

    with drive(folder, supervised=True, listener=Listens()) as driver:
        until(driver, lambda status: status.condition == "waiting")
    assert seen == ["waiting"] and driver.condition == "stopped"


def test_a_follower_shows_what_a_run_says_of_the_error_that_stopped_it(
    folder: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("tools.training.lora.LoraTrainer.train", full)
    with ThreadPoolExecutor() as pool:
        with suppress(NesyLoraError), drive(folder) as driver:
            followed = pool.submit(follow, folder, json=True)
            until(driver, lambda status: status.condition == "stopped")
            assert waits(followed), "its process is still there"
            driver.wait(0.0)
        assert followed.result(PATIENCE) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["kind"] == "stopped" and "disk is full" in last["reason"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_cleanly_and_the_run_goes_on(folder: RunFolder, number: signal.Signals, code: int) -> None:
    worker = nesylora("resume", folder.name, "--runs", folder.path.parent)
    until(reached(folder), training)
    worker.send_signal(number)
    said, error = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == code, error
    assert "ending after the batch under way" in error and f"go on with: nesylora resume {folder.path}" in error
    assert "Traceback" not in error
    assert process.noted(folder) is None and not (folder.path / "run.holder").exists()
    assert [row["kind"] for row in lines(folder)] == ["baseline"] and not list((folder.path / "adapters").glob("*"))
    assert "stopped: The user stopped it." in said
    with folder.locked():
        pass


def test_a_second_signal_ends_at_once(folder: RunFolder) -> None:
    """The process is held in its batch, so that it cannot end cleanly."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "import tools.training.optimizer_steps as steps\n"
        "steps.OptimizerSteps.run = lambda *_: (print('held', flush=True), time.sleep(600))\n"
        "from ui.cli import run\nsys.exit(run(sys.argv[1:]))"
    )
    line = [sys.executable, "-c", code, "resume", str(folder.path)]
    with subprocess.Popen(line, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        assert worker.stdout is not None and worker.stderr is not None
        while "held" not in worker.stdout.readline():
            assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        while "ending" not in worker.stderr.readline():
            assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 143
    assert status_of(folder).condition == "stopped"


def test_a_supervised_worker_asks_its_clients_and_looks_for_them(folder: RunFolder) -> None:
    steering = steer(folder)
    status = until(steering, lambda status: status.condition == "waiting")
    assert status.supervised and status.question and status.question.number == 1
    assert steering.look(TryPrompt(question="Who?")).found == "try_prompt"
    other = attach(folder)
    other.answer(APPROVE, 1)
    with pytest.raises(BadInput, match=r"waits for no answer now|answered already"):
        steering.answer(APPROVE, 1)
    until(steering, training)
    steering.cancel_step()
    status = until(other, lambda status: status.condition == "waiting")
    assert status.rounds == 1 and folder.rounds()[0].trial.cancelled
    with pytest.raises(BadInput, match="there is no call"):
        getattr(steering, "_call")("close", {}, 5.0)  # noqa: B009
    steering.leave()


def test_a_program_of_ones_own_that_has_the_run_is_named(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--runs", str(folder.path.parent)]
    with folder.locked():
        with pytest.raises(Busy, match=f"process {os.getpid()} .* cannot be steered"):
            steer(folder)
        for line in (["ctl", "status", folder.name, *runs], ["runs", "--json", *runs]):
            assert command(line) == 0
            said = capsys.readouterr().out
            assert f"in use by process {os.getpid()}" in said and "working" in said and "stopped" not in said


def test_two_who_start_a_process_for_a_run_at_once_both_steer_the_one_that_has_it(folder: RunFolder) -> None:
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(steer, [folder, RunFolder.open(folder.path)]))
    statuses = [steering.status() for steering in both]
    assert statuses[0].pid == statuses[1].pid and statuses[0].pid
    both[0].leave()


def test_a_run_that_does_not_answer_hides_no_other_and_says_so(
    folder: RunFolder, tiny_task: TinyTask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf, monkey = new_run(tiny_task(), LONG, folder.path.parent, "deaf"), monkeypatch.setattr
    path = Path(tempfile.mkdtemp(dir="/tmp")) / "deaf.sock"
    monkey("graphs.control.client.ANSWERS", 2.0)
    with socket.socket(socket.AF_UNIX) as listens, drive(folder, supervised=True):
        listens.bind(str(path))
        listens.listen()
        process.note(deaf, process.Process(pid=os.getpid(), socket=str(path)))
        assert command(["ctl", "list", "--json", "--runs", str(folder.path.parent)]) == 0
    listed = {line["run"]: line["trouble"] for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert listed.keys() == {folder.name, "deaf"}
    assert not listed[folder.name] and "does not answer" in listed["deaf"]


def test_a_process_whose_socket_file_is_gone_is_named_at_once(folder: RunFolder) -> None:
    driver = cast(Driver, SimpleNamespace(error=None))
    with folder.locked(), taken(folder) as mine:
        assert process.lost(folder) == "", "it begins"
        with served(driver, folder, mine):
            assert live(folder) is not None and process.lost(folder) == ""
            Path(mine.socket).unlink()
            for reach in (attach, steer):
                with pytest.raises(Busy, match=f"Process {os.getpid()} works .* socket {mine.socket} is gone"):
                    reach(folder)
            assert f"kill {os.getpid()}" in status_of(folder).trouble and status_of(folder).condition == "working"
        assert process.lost(folder) == "", "it lets go"


class Breaks:
    """A run whose calls fail in ways that nobody had thought of."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def pause(self, now: bool = False) -> RunStatus:
        raise self._error


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("out of memory"), KeyError("odd")])
def test_whatever_fails_in_the_process_of_a_run_is_answered(error: Exception) -> None:
    answer = wire.answered(wire.request("pause", {"now": True}), cast(Steering, Breaks(error)))
    with pytest.raises(NesyLoraError, match=f"pause has failed in the process of the run: {type(error).__name__}"):
        wire.result(answer, "pause")
    answer = wire.answered(wire.request("pause", {"no such": True}), cast(Steering, Breaks(error)))
    with pytest.raises(BadInput, match="the request cannot be read"):
        wire.result(answer, "pause")


def test_a_worker_that_cannot_begin_says_why(folder: RunFolder, tiny_task: TinyTask) -> None:
    (Path(folder.about.source) / "validation.jsonl").write_text('{"question": "Another?", "answer": "Yes"}\n')
    with pytest.raises(NesyLoraError, match="have changed since run"):
        start_worker(folder)


def test_the_socket_is_the_users_alone_however_long_the_path_of_the_run(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path.joinpath(*["a-folder-of-a-rather-long-name"] * 5)
    folder = new_run(tiny_task(), LONG, deep)
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    path = process.socket_path(folder)
    assert len(os.fsencode(path)) <= 103 and path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.stat().st_uid == os.getuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_not_answered(folder: RunFolder) -> None:
    """Neither through the folder of the socket, nor where that stands open."""
    path = Path(tempfile.mkdtemp(dir="/tmp")) / "open.sock"
    path.parent.chmod(0o755)
    code = (
        "import os, socket, sys\nos.setuid(int(sys.argv[2]))\n"
        "connection = socket.socket(socket.AF_UNIX)\nconnection.settimeout(60)\n"
        "try:\n    connection.connect(sys.argv[1])\n"
        '    connection.sendall(b\'{"call": "leave", "arguments": {}}\\n\')\n'
        "    print('answer', connection.recv(100))\nexcept OSError as error:\n    print(type(error).__name__)"
    )

    def asked(at: Path, user: int) -> str:
        line = [sys.executable, "-I", "-c", code, str(at), str(user)]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    with drive(folder, supervised=True) as driver:
        noted = process.noted(folder)
        assert noted and asked(Path(noted.socket), 65534).strip() == "PermissionError"
        server = Server(driver, path)
        path.chmod(0o666)
        assert "result" not in asked(path, 65534)
        assert driver.status().condition != "stopped"
        assert "result" in asked(path, 0)
        server.close()
    assert not path.exists()


def test_a_worker_that_nobody_asks_any_more_ends(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.control.work.IDLE", 0.0)
    assert work(folder, Ending(), supervised=True) == 143
    assert status_of(folder).condition == "stopped" and folder.baseline() is not None
