"""Writing that survives: whole files, single lines, and what a full disk leaves of them."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import NesyLoraError
from memory.storage.disk import append_line, whole_lines, write_atomically


def test_a_full_disk_leaves_the_old_file_and_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "prompt.json"
    write_atomically(file, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NesyLoraError, match=r"prompt\.json could not be written \(1,000 bytes needed, [0-9,]+ free\)"):
        write_atomically(file, "x" * 1000)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_line_that_finds_the_disk_full_says_so(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    with pytest.raises(NesyLoraError, match="disk is full"):
        append_line(tmp_path / "events.jsonl", "{}", sync=True)


def test_another_trouble_with_the_disk_is_not_called_full(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@given(lines=st.lists(st.text(alphabet=st.characters(exclude_characters="\n", exclude_categories=["Cs"]))))
def test_lines_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    file = tmp_path_factory.mktemp("lines") / "lines"
    for line in lines:
        append_line(file, line, sync=False)
    assert [line.decode() for line in whole_lines(file)] == lines
