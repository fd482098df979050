"""Rows of a data set on the Hugging Face hub, with their texts as they are written there.

The library guesses types: of "2024-01-01" it makes a timestamp, of a CSV file's 007 a 7 and of its NA nothing. So JSON
and CSV files are fetched by it, and read here.
"""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BadInput
from eval.tasks.sources import RawRow, Table, csv_rows, json_rows

if TYPE_CHECKING:
    from datasets import DatasetBuilder

# What a data set's configuration may say of its CSV or JSON files without changing how their texts are read here.
HARMLESS = ("name", "version", "data_dir", "data_files", "description", "sep", "delimiter")
WAY_OUT = "check the names and the network, or give files as data.train, data.validation and data.test"


def read_hub(name: str, config: str | None, split: str, columns: tuple[str, ...] = ()) -> Table:
    """One split of a data set on the hub, or a slice of one (train[:10%]); its loading scripts are never run.

    Args:
        columns: what the rows must have; see `read_file`.

    Raises:
        BadInput: no such data set, configuration or split, no network, or files whose texts would be changed.
    """
    from datasets.exceptions import DatasetsError

    place = f"hub data set '{name}'{f' ({config})' if config else ''}, split '{split}'"
    try:
        rows = _rows(name, config, split, columns)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise BadInput(f"{place}: {reason}; {WAY_OUT}") from None
    return Table(place, "row", tuple(rows))


def _rows(name: str, config: str | None, split: str, columns: tuple[str, ...]) -> list[RawRow]:
    from datasets import load_dataset, load_dataset_builder
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.json.json import Json

    builder = load_dataset_builder(name, config)
    if not isinstance(builder, Csv | Json):  # Parquet and the like have the types that they were given
        return [RawRow(number, row) for number, row in enumerate(load_dataset(name, config, split=split), start=1)]
    usual = type(builder.config)()
    names = [field.name for field in fields(builder.config) if field.name not in HARMLESS]
    if changing := [f"`{name}`" for name in names if getattr(builder.config, name) != getattr(usual, name)]:
        raise ValueError(f"it sets {' and '.join(changing)} for its files, and their texts could come out changed")
    return _sliced(builder, split, columns, lines=isinstance(builder, Json))


def _sliced(builder: "DatasetBuilder", split: str, columns: tuple[str, ...], lines: bool) -> list[RawRow]:
    """What is asked for, numbered from 1. Raises ValueError for a split that is not there."""
    from datasets import DownloadConfig, DownloadManager, ReadInstruction

    asked, files = ReadInstruction.from_spec(split), builder.config.data_files
    there = {str(name): 10**9 for name in files}
    downloads = DownloadManager(
        builder.dataset_name, base_path=builder.base_path, download_config=DownloadConfig(token=builder.token)
    )
    rows = {}
    for part in asked.to_absolute(there):
        paths = downloads.iter_files(downloads.download_and_extract(list(files[part.splitname])))
        found = (row for path in paths for row in _file_rows(Path(path), columns, lines))
        rows[part.splitname] = list(found)
    parts = asked.to_absolute(there | {name: len(read) for name, read in rows.items()})
    chosen = [row for part in parts for row in rows[part.splitname][part.from_ : part.to]]
    return [RawRow(number, row.values, row.problem) for number, row in enumerate(chosen, start=1)]


def _file_rows(path: Path, columns: tuple[str, ...], lines: bool) -> Iterator[RawRow]:
    return json_rows(path) if lines else csv_rows(path, columns)
