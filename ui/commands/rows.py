"""`nesylora rows from-log`: what a served model was asked becomes rows for the next run."""

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BadInput

if TYPE_CHECKING:
    from agent.config.data import Data
    from agent.records.examples import Example
    from eval.feedback.log import Log
    from eval.feedback.sift import Sifted

SHOWN = 5  # reasons for setting answers aside that are printed


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`rows`, with `from-log` below it."""
    rows = commands.add_parser("rows", help="rows for the next run: from the log of a served model")
    below = rows.add_subparsers(metavar="FROM", required=True)
    command = below.add_parser(
        "from-log", help="judge served answers; keep good ones, set others aside to be corrected"
    )
    command.add_argument("log", nargs="*", type=Path, help="a log of `nesylora serve --log`; several are read in order")
    command.add_argument("--task", type=Path, metavar="TASK", help="a task.yaml or its folder, whose scorers judge")
    command.add_argument("--into", type=Path, required=True, metavar="ROWS.jsonl", help="new rows are added to it")
    command.add_argument(
        "--aside", type=Path, metavar="FILE",
        help="what is to be corrected; wanted answers that stand there become rows; default: ROWS.aside.jsonl",
    )  # fmt: skip
    command.add_argument(
        "--wanted", type=Path, metavar="FILE", help="rows with the right answers, where they are known"
    )
    command.add_argument("--model", metavar="NAME", help="only what this model of the log was asked")
    command.add_argument(
        "--redact", nargs="?", const="built-in", metavar="MODULE:FUNCTION",
        help="take e-mail addresses, phone numbers and keys out of texts, or what your function takes out",
    )  # fmt: skip
    command.set_defaults(do=from_log)


def from_log(options: argparse.Namespace) -> int:
    """Read, judge, write, and say what became of it."""
    import yaml

    from agent.config.data import Data
    from eval.feedback.log import read_log
    from eval.feedback.redaction import redaction
    from eval.feedback.sift import Sieve
    from eval.tasks.task import load_task
    from memory.storage.disk import write_atomically

    aside = options.aside or options.into.with_suffix(".aside.jsonl")
    corrected = aside if aside.is_file() else None
    if not options.log and not corrected:
        raise BadInput("name a log, as `nesylora serve --log FILE` writes it")
    if options.into.suffix != ".jsonl":
        raise BadInput(f"--into {options.into}: rows are written as .jsonl")
    task = load_task(options.task) if options.task else None
    data = task.config.data if task else Data(path="-")
    sieve = Sieve(
        task, data, there=_rows(options.into, data) if options.into.is_file() else (),
        wanted=_rows(options.wanted, data) if options.wanted else (),
        redact=redaction(options.redact) if options.redact else str,
    )  # fmt: skip
    log = read_log(options.log, options.model, corrected)
    found = sieve.sift(log.asked)
    before = options.into.read_text(encoding="utf-8") if options.into.is_file() else ""
    if found.rows:
        write_atomically(options.into, _ended(before) + "".join(f"{_line(row)}\n" for row in found.rows), private=True)
    if found.aside or corrected:
        write_atomically(aside, "".join(f"{item.model_dump_json()}\n" for item in found.aside), private=True)
    _tell(log, found, options.into, aside)
    if found.rows:
        listed = yaml.safe_dump([_from_the_task(options.into, options.task)], default_flow_style=True, width=math.inf)
        print(f"To train on them, add to the task's data:  extra: {listed.strip()}")
    return 0


def _from_the_task(file: Path, task: Path | None) -> str:
    """A file as a task.yaml names it: its paths start there."""
    if task is None:
        return str(file.resolve())
    return os.path.relpath(file.resolve(), (task if task.is_dir() else task.parent).resolve())


def _rows(file: Path, data: "Data") -> "Sequence[Example]":
    from eval.tasks.rows import read_examples
    from eval.tasks.sources import read_file

    table = read_file(file, data.columns)
    return read_examples(table, data, "log").examples if table.rows else ()


def _line(row: dict[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _tell(log: "Log", found: "Sifted", into: Path, aside: Path) -> None:
    by_form = sum(row.get("judged") == "form" for row in found.rows)
    print(f"{len(log.asked)} answered questions: {len(found.rows)} new rows in {into}")
    if by_form:
        print(f"  {by_form} of them have the wanted form, and nobody has said whether they are right: look at them")
    if found.known:
        print(f"  the wanted answer was known of {found.known}; {found.right} had been answered so")
    if found.aside:
        print(f"{len(found.aside)} set aside in {aside}: fill in `wanted`, and run this again")
        counts: dict[str, int] = {}
        for item in found.aside:
            counts[item.reason] = counts.get(item.reason, 0) + 1
        for reason, count in sorted(counts.items(), key=lambda entry: -entry[1])[:SHOWN]:
            print(f"  {count}: {reason}")
    for reason, count in (log.left_out | found.dropped).items():
        print(f"{count} left out: {reason}")
