"""What the server writes down is what `nesylora rows from-log` reads."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx

from eval.feedback.log import read_log
from tests.fixtures.learnable import TinyTask
from tests.fixtures.serving import PROMPT, pair, serving
from ui.cli import run as command


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
