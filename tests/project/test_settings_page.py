"""docs/settings.md is what the config models say now, of every key."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "docs" / "settings.py"))
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_it_is_current() -> None:
    assert SCRIPT["page"]() == PAGE, "run: python docs/settings.py"


def test_every_key_has_a_line_that_says_what_it_is() -> None:
    assert SCRIPT["undescribed"]() == []


@pytest.mark.parametrize(
    "line",
    [
        "| `rounds` | whole number, at least 0, at most 10,000 | `6` |",
        "| `target` | number, above 0, at most 1 | `0.95` |",
        "| `replay` | number, at least 0, at most 4 | `0.25` |",
        "| `too_long` | `refuse` or `leave_out` or `wrong` | `refuse` |",
        "| `schema` | keys and values or null | null |",
        "| `rubric` | text | **must be given** |",
    ],
)
def test_types_ranges_and_defaults_stand_in_it(line: str) -> None:
    assert line in PAGE
