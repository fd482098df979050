"""docs/libraries.md tells the truth: its guards, tests and library files exist, and its versions are those pinned."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "libraries.md").read_text(encoding="utf-8")
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
UNPINNED = ("Python", "setuptools", "llama.cpp by xllamacpp")  # what no constraint speaks of


class Row(NamedTuple):
    """A line of the tables of what is guarded against."""

    what: str
    version: str
    source: str
    guard: str
    test: str

    def __str__(self) -> str:
        return self.what[:40]


def rows() -> list[Row]:
    lines = (line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| "))
    return [Row(*cells) for cells in lines if len(cells) == len(Row._fields) and cells[0] != "what happens"]


ROWS = rows()


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_no_line_of_its_tables_is_passed_over() -> None:
    before = PAGE.split("## Where results go")[0]
    assert len(ROWS) == len(re.findall(r"^\| (?!what happens)", before, flags=re.MULTILINE)) > 60


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_guard_stands_where_it_says_or_what_to_do_without(row: Row) -> None:
    if row.guard.startswith("none"):
        assert re.match(r"none( needed)?: \w", row.guard)
        return
    file = ""
    for name in names(row.guard):
        if name.endswith(".py"):
            file = (ROOT / name).read_text(encoding="utf-8")
        else:
            assert re.search(rf"\b{name}\b", file), name
    assert file and not row.guard.rstrip("`").endswith(".py")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_its_test_exists(row: Row) -> None:
    if row.test == "none":
        return
    [name] = names(row.test)
    file, _, function = name.partition("::")
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file)]
    assert sum(f"\ndef {function}(" in text for text in texts) == 1


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_its_version_is_the_pinned_one(row: Row) -> None:
    for pinned in row.version.split(", "):
        package, version = pinned.rsplit(" ", 1)
        assert package in UNPINNED or PINNED[package] == version


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_its_source_is_a_file_of_the_library_or_a_try_or_a_report(row: Row) -> None:
    files = names(row.source)
    assert files or row.source in ("tried", "reported")
    for file in files if row.version.rsplit(" ", 1)[0] not in UNPINNED else ():
        spec = find_spec(file.split("/")[0])
        assert spec is not None and spec.submodule_search_locations is not None
        assert any((Path(place).parent / file).is_file() for place in spec.submodule_search_locations), file


def test_guards_and_tests_named_beside_the_findings_exist() -> None:
    findings = (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:agent|bench|eval|graphs|memory|tests|tools|ui)/[^`]+\.py)`", findings)
    assert len(named) > 6 and all((ROOT / name).is_file() for name in named)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", PAGE)
    assert links and all((ROOT / "docs" / link).exists() for link in links)
