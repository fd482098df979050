"""The tables of a benchmark as a terminal shows them."""

import io
from pathlib import Path

from rich.console import Console

from bench.decisions.folder import begin
from bench.decisions.output import write
from bench.decisions.results import Result
from memory.storage.disk import append_line
from tests.bench.test_results import a_result


def test_a_name_with_brackets_is_shown_as_it_was_given(tmp_path: Path) -> None:
    name = "learned [no memory]"
    (tmp_path / "mayors-seed0").mkdir()
    (tmp_path / "mayors-seed0" / "results.jsonl").write_text(f"{a_result(name, 0, (1.0, 0.0)).model_dump_json()}\n")
    begin(tmp_path, "bench decide", 1, 1)
    shown = io.StringIO()
    write(tmp_path, Console(file=shown, width=150))
    assert name in shown.getvalue()


def written(folder: Path, results: list[Result]) -> tuple[list[str], str]:
    """The lines of table.md, and what the terminal shows."""
    for result in results:
        (folder / f"{result.task}-seed0").mkdir(exist_ok=True)
        append_line(folder / f"{result.task}-seed0" / "results.jsonl", result.model_dump_json(), sync=False)
    begin(folder, "bench decide", 1, 1)
    shown = io.StringIO()
    write(folder, Console(file=shown, width=150))
    return (folder / "table.md").read_text().splitlines(), shown.getvalue()


def test_what_the_commonest_answer_earns_heads_the_tables_of_rewards(tmp_path: Path) -> None:
    one = a_result(task="a", commonest=0.5)
    lines, shown = written(tmp_path, [one, a_result(task="b", commonest=0.25, most_alike=0.5)])
    assert "| commonest answer | 0.50 | 0.25 (0.50) |" in lines
    line = next(line for line in shown.splitlines() if "commonest answer" in line)
    assert line.replace("│", " ").split()[2:7] == [
        "0.50",
        "0.25",
        "(0.50)",
        "0.38",
        "(0.50)",
    ]  # of each task, and their mean


def test_where_a_judge_scores_a_task_the_commonest_answer_has_a_dash(tmp_path: Path) -> None:
    lines, _ = written(tmp_path, [a_result(task="a", commonest=0.5), a_result(task="b")])
    assert "| commonest answer | 0.50 | – |" in lines


def test_drift_is_a_mean_over_runs_with_its_interval(tmp_path: Path) -> None:
    rules = [a_result("rules", seed, task=task, drift=seed * 0.5) for seed in range(3) for task in "ab"]
    lines, shown = written(tmp_path, [*rules, a_result("old")])
    assert lines[lines.index("## All tasks") + 4].endswith("| drift |")
    rows = [line for line in lines if line.startswith(("| rules | 6 ", "| old | 1 "))]
    means, unknown = [row.rsplit(" | ", 1)[1] for row in rows]
    assert means.startswith("+0.50 \\[+0.") and unknown == "– |", "rows of older versions do not say it"
    assert "drift" in shown
