"""What the server writes down is what `nesylora rows from-log` reads."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx

from agent.records.served import ServedRequest
from eval.feedback.log import read_log
from tests.eval.test_feedback import served
from tests.fixtures.learnable import TinyTask
from tests.fixtures.serving import PROMPT, pair, serving
from ui.cli import run as command
from ui.serve.log import RequestLog


def test_served_questions_become_rows_for_the_next_run(
    tiny_model: Callable[[str], Path], tiny_task: TinyTask, tmp_path: Path
) -> None:
    log, into = tmp_path / "log.jsonl", tmp_path / "rows.jsonl"
    asked = [
        [{"role": "user", "content": "Who is mayor of Ash?"}],
        [{"role": "user", "content": "Name the mayor of Benn."}],  # a validation row of the task
        [{"role": "system", "content": "Mine."}, {"role": "user", "content": "Who?"}],
    ]
    with serving([pair(tiny_model("llama"), prompt=PROMPT)], log=log) as server:
        for messages in asked:
            body = {"model": "first", "messages": messages}
            assert httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    found = read_log([log])
    assert [item.example.question for item in found.asked] == ["Who is mayor of Ash?", "Name the mayor of Benn."]
    assert found.left_out == {"it brought a prompt of its own": 1}
    (tmp_path / "known.jsonl").write_text('{"question": "who is mayor of ash", "answer": "Brom"}\n')
    named = ["rows", "from-log", str(log), "--task", str(tiny_task()), "--wanted", str(tmp_path / "known.jsonl")]
    assert command([*named, "--into", str(into)]) == 0
    [row] = [json.loads(line) for line in into.read_text().splitlines()]
    assert (row["question"], row["answer"], row["judged"]) == ("Who is mayor of Ash?", "Brom", "wanted")


def test_a_log_that_was_there_becomes_its_owners_and_loses_no_line(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"kind": "served", "ti')  # a kill cut it off
    file.chmod(0o644)
    said = ServedRequest.model_validate_json(served("Who?", "ANSWER: A"))
    for _ in range(2):
        log = RequestLog(file)
        log.add(said)
        log.close()
    assert file.stat().st_mode & 0o777 == 0o600
    found = read_log([file])
    assert len(found.asked) == 2 and found.left_out == {"a damaged line": 1}
