"""`nesylora mcp`: parsing, which loads nothing heavy."""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

ASKING = ("train_lora", "continue_run", "extend", "finish")
"""Tools that need a person's yes: they train, spend more than was allowed, or open the test rows."""
TOKEN_VARIABLE = "NESYLORA_MCP_TOKEN"


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`mcp`."""
    command = commands.add_parser("mcp", help="serve the runs as tools of other agents (Model Context Protocol)")
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="default: ./runs")
    command.add_argument(
        "--http", type=int, metavar="PORT", help=f"serve on 127.0.0.1 instead of standard input and output; the token "
        f"is that of ${TOKEN_VARIABLE}, or a new one, which is printed",
    )  # fmt: skip
    command.add_argument(
        "--allow", action="append", default=[], choices=[*ASKING, "all"], metavar="TOOL",
        help=f"ask nobody before this tool: {', '.join(ASKING)}, or all; may be given again",
    )  # fmt: skip
    command.set_defaults(do=_mcp)


def _mcp(options: argparse.Namespace) -> int:
    from agent.errors import BadInput
    from ui.options import quiet_libraries

    quiet_libraries()
    if not find_spec("fastmcp"):
        raise BadInput("the MCP server needs fastmcp: pip install 'nesylora[mcp]'")
    if options.http is not None and not 0 < options.http < 65_536:
        raise BadInput(f"--http {options.http}: a port is a number from 1 to 65535")
    from graphs.control.client import steer
    from ui.mcp.runs import Runs
    from ui.mcp.server import serve

    allowed = ASKING if "all" in options.allow else options.allow
    serve(Runs(options.runs.resolve(), steer), allowed, options.http, os.environ.get(TOKEN_VARIABLE, ""))
    return 0
