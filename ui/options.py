"""What commands share: options, and how they are read. Importing this loads nothing heavy."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.example_tasks import shipped

if TYPE_CHECKING:
    from memory.run.folder import RunFolder


def add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--policy", help="who decides: rules (default), learned, paper, or a schedule such as 'p -> w'"
    )
    command.add_argument("--name", help="of the run's folder; default: task and time")
    add_settings(command)


def add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="change a setting of the task, such as budget.rounds=3; may be given again",
    )  # fmt: skip
    add_runs(command)


def add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="default: ./runs")


def add_run_name(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", nargs="?", help="its name or folder; default: the newest")
    add_runs(command)


def count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number of answers")
    return int(text)


def task_path(name: str | None) -> Path:
    return Path(name) if name else shipped("valley")


def overrides_of(options: argparse.Namespace) -> list[str]:
    return [*options.overrides, *([f"policy={options.policy}"] if options.policy else [])]


def find_run(options: argparse.Namespace) -> "RunFolder":
    from agent.errors import BadInput
    from memory.run.folder import RunFolder, runs

    if options.run:
        path = Path(options.run)
        return RunFolder.open(path if (path / "run.json").is_file() else options.runs / options.run)
    newest = next(iter(runs(options.runs)), None)
    if newest is None:
        raise BadInput(f"there are no runs in {options.runs} yet; start one with: nesylora demo")
    print(f"nesylora: the newest run, {newest.name}", file=sys.stderr)
    newest.check()
    return newest


def quiet_libraries() -> None:
    """Quiet what libraries say about themselves, and let nobody fetch anything that was not asked for."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # what a lost connection leaves; the wait for it is told
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\b")
