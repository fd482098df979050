"""`nesylora init`: parsing, which loads nothing heavy."""

import argparse
from pathlib import Path


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`init`."""
    command = commands.add_parser("init", help="make a task of a file of rows: columns, splits, scorers, target")
    command.add_argument(
        "rows", type=Path,
        help="a .jsonl, .json, .csv, .tsv or .parquet file: questions and answers, chats, or Alpaca rows",
    )  # fmt: skip
    command.add_argument("--into", type=Path, metavar="FOLDER", help="of the new task; default: ./NAME of the file")
    command.add_argument("--name", default="", help="of the task; default: that of its folder")
    command.add_argument("--model", default="smollm2-135m", help="hub name or local folder; default: smollm2-135m")
    for option, what in (("question", "the question"), ("answer", "the answer"), ("messages", "chat messages")):
        command.add_argument(f"--{option}", default="", metavar="COLUMN", help=f"column of {what}; default: found")
    command.add_argument("--content", default="", metavar="KIND", help="content scorer; default: what fits the answers")
    command.add_argument("--target", type=float, help="validation reward at which a run is done")
    command.add_argument("--yes", action="store_true", help="take the proposal without questions")
    command.add_argument("--no-try", action="store_true", help="load no model; else five rows are tried")
    command.set_defaults(do=_init)


def _init(options: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from agent.errors import BadInput
    from eval.drafts.records import DraftOptions
    from ui.commands.drafting import at_terminal, init, is_terminal
    from ui.options import quiet_libraries

    quiet_libraries()
    names = ("name", "model", "question", "answer", "messages", "content", "target")
    try:
        wanted = DraftOptions.model_validate({name: getattr(options, name) for name in names})
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadInput(f"--{fault['loc'][0]}: {fault['msg']}") from None
    ask = None if options.yes or not is_terminal() else at_terminal
    return init(options.rows, options.into, wanted.named_for(options.into), ask, tries=not options.no_try)
