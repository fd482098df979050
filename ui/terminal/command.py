"""`nesylora chat`: parsing, which loads nothing heavy."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ui.options import add_run_options, overrides_of, quiet_libraries, task_path

if TYPE_CHECKING:
    from memory.run.folder import RunFolder


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`chat`."""
    talk = commands.add_parser("chat", help="steer a run yourself: see each plan, approve it, go back, try things")
    talk.add_argument(
        "task", nargs="?", help="a task.yaml or its folder, or the name of a run; default: the example task"
    )
    talk.add_argument("--llm", metavar="MODEL", help="an LLM that understands plain language; default: the task's own")
    talk.add_argument("--base-url", metavar="URL", help="of its OpenAI-compatible server; default: OpenAI's own")
    add_run_options(talk)
    talk.set_defaults(do=_chat)


def _chat(options: argparse.Namespace) -> int:
    from eval.tasks.task import load_config
    from memory.run.naming import as_typed
    from ui.talk.llm import chosen_llm
    from ui.terminal.chat import chat

    quiet_libraries()
    folder = _run_to_chat_about(options)
    options.ending.advice = f"What was completed is kept; go on with: nesylora chat {as_typed(folder.path)}"
    llm = chosen_llm(load_config(folder.task_file).llm, options.llm, options.base_url)
    return chat(folder, llm, alone=options.alone)


def _run_to_chat_about(options: argparse.Namespace) -> "RunFolder":
    """The run that is named, or a new one of the task that is."""
    from agent.errors import BadInput
    from graphs.context import new_run
    from memory.run.folder import RunFolder

    for named in (Path(options.task or ""), options.runs / (options.task or "")):
        if (named / "run.json").is_file():
            if overrides_of(options) or options.name:
                raise BadInput(f"the run {named.name} has its settings already: leave out --set, --policy and --name")
            return RunFolder.open(named)
    if options.task and not Path(options.task).exists():
        try:
            RunFolder.open(options.runs / options.task)
        except BadInput as error:  # with the nearest names
            raise BadInput(f"{options.task} is no task.yaml and no folder of one. {error}") from None
    return new_run(task_path(options.task), overrides_of(options), options.runs, options.name)
