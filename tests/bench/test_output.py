"""The tables of a benchmark as a terminal shows them."""

import io
from pathlib import Path

from rich.console import Console

from bench.decisions.folder import begin
from bench.decisions.output import write
from tests.bench.test_results import a_result


def test_a_name_with_brackets_is_shown_as_it_was_given(tmp_path: Path) -> None:
    name = "learned [no memory]"
    (tmp_path / "mayors-seed0").mkdir()
    (tmp_path / "mayors-seed0" / "results.jsonl").write_text(f"{a_result(name, 0, (1.0, 0.0)).model_dump_json()}\n")
    begin(tmp_path, "bench decide", 1)
    shown = io.StringIO()
    write(tmp_path, Console(file=shown, width=150))
    assert name in shown.getvalue()
