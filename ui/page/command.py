"""`nesylora ui`: parsing, which loads nothing heavy."""

import argparse
from pathlib import Path


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`ui`."""
    command = commands.add_parser("ui", help="the runs as a page in the browser: watch, steer and start them")
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="default: ./runs")
    command.add_argument("--port", type=int, metavar="N", help="default: 8765, or a free one where that is taken")
    command.add_argument("--no-open", action="store_true", help="do not open the browser")
    command.set_defaults(do=_ui)


def _ui(options: argparse.Namespace) -> int:
    from ui.options import quiet_libraries
    from ui.page.serve import serve

    quiet_libraries()
    return serve(options.runs, options.port, not options.no_open)
