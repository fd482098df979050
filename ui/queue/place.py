"""`--on`, `--jobs` and `--gpus-each`: parsing, which loads nothing heavy."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphs.workers.executors import Place

HERE = "here"  # as graphs.workers.executors has it


def add_place(command: argparse.ArgumentParser, jobs: str) -> None:
    """`--on`, `--jobs` and `--gpus-each`."""
    command.add_argument(
        "--on", default=HERE, metavar="ray|ray://HOST:PORT",
        help="a Ray cluster: one for this machine, or the one at RAY_ADDRESS or at this address (docs/scale.md)",
    )  # fmt: skip
    command.add_argument("--jobs", type=int, metavar="N", help=jobs)
    command.add_argument(
        "--gpus-each", type=float, metavar="N", help="with --on: GPUs of each process, such as 0.5 (default: 1)"
    )


def place_of(options: argparse.Namespace) -> "Place":
    """Where it is to run. Raises BadInput."""
    from graphs.workers.executors import Place

    return Place(options.on, options.jobs, options.gpus_each)
