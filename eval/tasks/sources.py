"""Tables of raw rows, each with its place: from JSON lines, a JSON list, CSV or Parquet."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from agent.errors import BadInput
from eval.tasks.cells import Written
from eval.tasks.config_errors import nearest

SEPARATORS = ",;\t|"
LONGEST = 2**31 - 1  # characters of a CSV field; Python's own limit is 131,072


@dataclass(frozen=True)
class RawRow:
    """Line (or row) number from 1, and the values by column, or the reason why there are none."""

    number: int
    values: dict[str, object] | None
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """`place` names the source in messages; `unit` is what its rows are counted in."""

    place: str
    unit: str
    rows: tuple[RawRow, ...]


def read_file(path: Path, columns: Sequence[str] = ()) -> Table:
    """All rows of a .jsonl, .json, .csv, .tsv or .parquet file.

    Args:
        columns: what the rows must have. They decide which sign separates the columns of a .csv file.

    Raises:
        BadInput: no such file, another kind of file, or one that cannot be read at all.
    """
    if not path.is_file():
        names = sorted(file.name for file in path.parent.glob("*") if file.is_file())
        hint = nearest(path.name, names, "the files there") if names else "there are no files in its folder"
        raise BadInput(f"{path}: no such file; {hint}")
    match path.suffix:
        case ".jsonl":
            return Table(str(path), "line", tuple(jsonl_rows(path)))
        case ".json":
            return Table(str(path), "row", tuple(json_rows(path)))
        case ".csv" | ".tsv":
            return Table(str(path), "line", tuple(csv_rows(path, columns)))
        case ".parquet":
            return Table(str(path), "row", tuple(_parquet(path)))
    raise BadInput(
        f"{path}: files of rows end in .jsonl (one JSON object a line), .json (a list), .csv, .tsv or .parquet"
    )


def jsonl_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a file with a JSON object on every line; numbers stay as they are written."""
    # Lines end at \n alone: JSON strings may hold the other separators that str.splitlines would cut at.
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield _json_row(number, line)


def json_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a file that is one JSON list of objects, or has an object on every line.

    Raises:
        BadInput: neither of them.
    """
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not content.lstrip().startswith(b"["):
        yield from jsonl_rows(path)
        return
    try:
        rows = json.loads(content.decode("utf-8"), parse_float=Written)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not valid JSON ({error})") from None
    for number, row in enumerate(rows, start=1):
        yield RawRow(number, row) if isinstance(row, dict) else RawRow(number, None, "not a JSON object")


def _json_row(number: int, line: bytes) -> RawRow:
    try:
        values = json.loads(line.decode("utf-8"), parse_float=Written)
    except UnicodeDecodeError as error:
        return RawRow(number, None, f"not UTF-8 ({error.reason} at byte {error.start})")
    except json.JSONDecodeError as error:
        return RawRow(number, None, f"not valid JSON ({error.msg} at column {error.colno})")
    except (ValueError, RecursionError) as error:
        return RawRow(number, None, f"not valid JSON ({error})")
    return RawRow(number, values) if isinstance(values, dict) else RawRow(number, None, "not a JSON object")


def csv_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[RawRow]:
    """The rows of a table whose columns are separated by commas, semicolons, tabs or bars; every value is text.

    Raises:
        BadInput: it is not valid CSV, or not UTF-8.
    """
    start, longest = 1, csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = _separator(file, columns)
            file.seek(0)
            reader = csv.DictReader(file, strict=True, delimiter=separator)
            names = reader.fieldnames or ()
            start = reader.line_num + 1
            for values in reader:
                # DictReader keeps surplus fields under None.
                surplus = f"more fields than the {len(names)} columns" if None in values else ""
                yield RawRow(start, None if surplus else dict(values), surplus)
                start = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {start}: not valid CSV ({error})") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    finally:
        csv.field_size_limit(longest)


def _separator(file: TextIO, columns: Sequence[str]) -> str:
    """The sign that cuts the head of the table into the wanted columns; else the one that makes most of it."""
    heads = {}
    for separator in SEPARATORS:
        file.seek(0)
        heads[separator] = next(csv.reader(file, delimiter=separator), [])
    fitting = [separator for separator, head in heads.items() if columns and set(columns) <= set(head)]
    return fitting[0] if fitting else max(SEPARATORS, key=lambda separator: len(heads[separator]))


def _parquet(path: Path) -> Iterator[RawRow]:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        rows = read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise BadInput(f"{path}: not a Parquet file that can be read ({error})") from None
    for number, row in enumerate(rows, start=1):
        yield RawRow(number, row)
