"""Tables of raw rows, each with its place: from JSON lines, CSV, Parquet, or a data set on the Hugging Face hub."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import BadInput
from eval.complaints import nearest


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


def read_file(path: Path) -> Table:
    """All rows of a .jsonl, .csv or .parquet file.

    Raises:
        BadInput: no such file, another kind of file, or one that cannot be read at all.
    """
    if not path.is_file():
        names = sorted(one.name for one in path.parent.glob("*") if one.is_file())
        hint = nearest(path.name, names, "the files there") if names else "there are no files in its folder"
        raise BadInput(f"{path}: no such file; {hint}")
    match path.suffix:
        case ".jsonl":
            return Table(str(path), "line", tuple(_jsonl(path)))
        case ".csv":
            return Table(str(path), "line", tuple(_csv(path)))
        case ".parquet":
            return Table(str(path), "row", tuple(_parquet(path)))
    raise BadInput(f"{path}: files of rows end in .jsonl (one JSON object a line), .csv or .parquet")


def read_hub(name: str, config: str | None, split: str) -> Table:
    """One split of a data set on the hub; its loading scripts are never run.

    Raises:
        BadInput: no such data set, configuration or split, or no network.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    place = f"hub data set '{name}'{f' ({config})' if config else ''}, split '{split}'"
    try:
        rows = load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        way_out = "check the names and the network, or give files as data.train, data.validation and data.test"
        raise BadInput(f"{place}: {reason}; {way_out}") from None
    return Table(place, "row", tuple(RawRow(number, row) for number, row in enumerate(rows, start=1)))


def _jsonl(path: Path) -> Iterator[RawRow]:
    # Lines end at \n alone: JSON strings may hold the other separators that str.splitlines would cut at.
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield _json_row(number, line)


def _json_row(number: int, line: bytes) -> RawRow:
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RawRow(number, None, f"not UTF-8 ({error.reason} at byte {error.start})")
    except json.JSONDecodeError as error:
        return RawRow(number, None, f"not valid JSON ({error.msg} at column {error.colno})")
    except (ValueError, RecursionError) as error:
        return RawRow(number, None, f"not valid JSON ({error})")
    return RawRow(number, values) if isinstance(values, dict) else RawRow(number, None, "not a JSON object")


def _csv(path: Path) -> Iterator[RawRow]:
    start = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or ()
            start = reader.line_num + 1
            for values in reader:
                # DictReader keeps surplus fields under None.
                surplus = f"more fields than the {len(columns)} columns" if None in values else ""
                yield RawRow(start, None if surplus else dict(values), surplus)
                start = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {start}: not valid CSV ({error})") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def _parquet(path: Path) -> Iterator[RawRow]:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        rows = read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise BadInput(f"{path}: not a Parquet file that can be read ({error})") from None
    for number, row in enumerate(rows, start=1):
        yield RawRow(number, row)
