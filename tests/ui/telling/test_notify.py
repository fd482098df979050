"""Others hear of the end and of trouble by a command and by a webhook; what fails there stops no run."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.config.notify import Notify
from agent.errors import NesyLoraError
from agent.records.rounds import Spend
from memory.run.folder import RunFolder
from tests.fixtures.story import an_outcome, make_run
from ui.telling.notify import Notice, send
from ui.telling.run import telling

NOTICE = Notice(event="end", of="run", name="a-run", text='mayors reached its target; "quoted"', after=0.5)


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server here, and the records it was sent."""
    got: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/secret-token", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_command_gets_the_record_and_the_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTO", str(tmp_path / "got.json"))
    assert send(Notify(command="""sh -c 'cat > "$1"; echo "$2" > "$1.text"' sh $INTO {text}"""), NOTICE) == []
    assert Notice.model_validate_json((tmp_path / "got.json").read_text()) == NOTICE
    assert (tmp_path / "got.json.text").read_text().strip() == NOTICE.text


def test_an_address_gets_the_record_and_its_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook() as (url, got):
        monkeypatch.setenv("HOOK", url)
        assert send(Notify(url="$HOOK"), NOTICE) == []
    assert Notice.model_validate(got[0]) == NOTICE
    with webhook(500) as (url, _):
        [fault] = send(Notify(url=url), NOTICE)
    assert fault == "The notification could not be posted: 127.0.0.1 answers with status 500"
    [fault] = send(Notify(url=url), NOTICE)  # nobody listens there any more
    assert "127.0.0.1: ConnectError" in fault and "secret" not in fault


def test_a_server_that_trickles_is_given_up_within_the_time_for_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.telling.notify.LIMIT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                for letter in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: yes\r\n" * 50:
                    connection.sendall(bytes([letter]))
                    time.sleep(0.1)

        threading.Thread(target=trickle, daemon=True).start()
        [fault] = send(Notify(url=f"http://127.0.0.1:{server.getsockname()[1]}/secret"), NOTICE)
    assert fault == "The notification could not be posted: no answer within 0 s"


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("no-such-program-anywhere", "No such file"),
        ("sh -c 'echo broken >&2; exit 7'", "exit code 7, broken"),
        ("sh -c 'unfinished", "No closing quotation"),
        ("sleep 60", "took longer than 0 s"),
    ],
)
def test_a_command_that_fails_leaves_a_sentence(command: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.telling.notify.LIMIT", 0.4 if command.startswith("sleep") else 20.0)
    [said] = send(Notify(command=command), NOTICE)
    assert fault in said


def test_a_run_tells_of_its_end_once_and_of_the_error_that_stopped_it(tmp_path: Path) -> None:
    run: RunFolder = make_run(tmp_path, finished=False)
    used, under_way = run.rounds()[-1].spend, Spend(seconds=109.0, read_tokens=50)
    run.charges.charge(f"{len(run.rounds())}-plan", under_way)
    with webhook() as (url, got):
        notify = Notify(url=url)
        with pytest.raises(NesyLoraError), telling(run, notify):
            raise NesyLoraError("The disk is full.")
        with telling(run, notify):
            run.append(an_outcome(run.rounds()[-1]))
        with telling(run, notify):  # it had ended before
            pass
    trouble, end = map(Notice.model_validate, got)
    assert (trouble.event, trouble.text) == ("trouble", f"Run {run.name} has stopped: The disk is full.")
    assert trouble.spend == used + under_way, "the step that was cut off counts"
    assert (end.event, end.reached, end.before, end.after) == ("end", True, 0.08, 0.92)
    assert "reached its target: test reward 0.08 → 0.92 in 4 rounds" in end.text and end.page == str(run.report_html)
