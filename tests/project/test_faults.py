"""docs/faults.md tells the truth: all 25 faults are there, and so is each test that it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
TABLES = PAGE.partition("## Budgets over")[0]  # what follows are measurements
LINES = [line.strip("| ").split(" | ") for line in TABLES.splitlines() if re.match(r"\| (?!fault|#|-)", line)]


def test_all_25_faults_are_there_in_order() -> None:
    numbered, others = LINES[:25], LINES[25:]
    assert [cells[0] for cells in numbered] == [str(number) for number in range(1, 26)]
    assert all(len(cells) == 4 for cells in numbered) and len(others) > 10
    assert all(len(cells) == 3 for cells in others)


@pytest.mark.parametrize("cells", LINES, ids=lambda cells: cells[-3][:40])
def test_its_tests_exist(cells: list[str]) -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", cells[-1])
    assert named and len(named) == cells[-1].count("`") / 2
    for file, function in named:
        texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file)]
        assert sum(f"\ndef {function}(" in text for text in texts) == 1, function
