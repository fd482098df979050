"""The command line. Parsing imports nothing heavy: `nesylora --help` answers at once."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import NesyLoraError
from ui.commands import check, init, rows
from ui.commands.export import add_export
from ui.commands.serve import add_command as add_serve
from ui.control import commands as control
from ui.control.signals import clean_ending, exit_code
from ui.mcp import command as mcp
from ui.options import (
    add_run_name,
    add_run_options,
    add_runs,
    count,
    find_run,
    overrides_of,
    quiet_libraries,
    task_path,
)
from ui.page import command as page
from ui.queue import commands as queue
from ui.queue.place import add_place
from ui.terminal import command as terminal

if TYPE_CHECKING:
    from memory.run.folder import RunFolder


AddCommands = Callable[["argparse._SubParsersAction[argparse.ArgumentParser]"], None]
"""Adds commands of a room above this one, such as the benchmark's."""


def run(arguments: Sequence[str] | None = None, more: Sequence[AddCommands] = (), alone: bool = False) -> int:
    """Parse, run the command, and return the exit code: see `ui.control.commands.EXIT_CODES`.

    Args:
        alone: the process is the command's own, which may end it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser(more).parse_args(arguments or ["--help"])
    options.arguments, options.alone = arguments, alone
    with clean_ending() as options.ending:
        try:
            return int(options.do(options) or 0)
        except NesyLoraError as error:
            print(f"nesylora: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt as error:
            by = f" by {error}" if str(error) else ""
            print(f"\nnesylora: stopped{by}. {options.ending.advice}".rstrip(), file=sys.stderr)
            return exit_code(error)
        except BrokenPipeError:  # as by `nesylora runs | head`: nobody reads the rest
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141


def parser(more: Sequence[AddCommands] = ()) -> argparse.ArgumentParser:
    """The whole command line, with the commands that `more` adds."""
    top = argparse.ArgumentParser(
        prog="nesylora",
        description="Adapt a language model to a task: tune weights or rewrite the prompt, decided round after round.",
        epilog=control.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"nesylora {_version()}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="adapt the embedded model to the example task tasks/valley")
    add_run_options(demo)
    control.add_ways(demo)
    demo.set_defaults(do=_demo)

    start = commands.add_parser("run", help="adapt a model to a task")
    start.add_argument("task", nargs="+", help="a task.yaml, or the folder that holds it; several make a queue")
    add_run_options(start)
    control.add_ways(start)
    queue.add_overnight(start)
    add_place(start, "tasks at a time, each in a process of its own (with --on alone: as many as there is room for)")
    start.set_defaults(do=_run)

    init.add_command(commands)
    rows.add_command(commands)

    resume = commands.add_parser(
        "resume", help="go on with a run that was stopped or killed, or has ended and is extended"
    )
    add_run_name(resume)
    control.add_resume_options(resume)
    resume.set_defaults(do=_resume)

    terminal.add_command(commands)
    _add_looking(commands)
    for add_commands in more:
        add_commands(commands)
    return top


def _add_looking(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands that work on what is there already."""
    score = commands.add_parser("eval", help="score a prompt, and an adapter, on a task's validation rows")
    score.add_argument("task", help="a task.yaml or its folder")
    score.add_argument("--prompt", type=Path, metavar="FILE", help="a prompt's JSON; default: the seed prompt")
    score.add_argument("--adapter", type=Path, metavar="FOLDER", help="a peft adapter; default: none")
    score.add_argument("--show", type=count, default=5, metavar="N", help="print so many answers (default: 5)")
    score.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    score.set_defaults(do=_eval)

    report = commands.add_parser("report", help="write a run's report again, and say where it is")
    add_run_name(report)
    report.add_argument("--open", action="store_true", help="in the browser")
    report.set_defaults(do=_report)

    taken = commands.add_parser("export", help="a run's best pair as a bundle for other engines, checked in each")
    add_run_name(taken)
    add_export(taken)
    taken.set_defaults(do=_export)
    add_serve(commands)

    listing = commands.add_parser("runs", help="list the runs")
    add_runs(listing)
    listing.add_argument("--json", action="store_true", help="for scripts: one JSON record a line")
    listing.set_defaults(do=_runs)
    control.add_commands(commands)
    queue.add_commands(commands)
    mcp.add_command(commands)
    page.add_command(commands)

    check.add_command(commands)

    doctor = commands.add_parser("doctor", help="what is installed, the device, the model cache, room, and the LLM")
    add_runs(doctor)
    doctor.add_argument(
        "--cluster", nargs="?", const="ray", metavar="ray://HOST:PORT", help="of each machine of a Ray cluster"
    )
    doctor.set_defaults(do=_doctor)


# --- the commands ----------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    return _begin(task_path(None), options)


def _run(options: argparse.Namespace) -> int:
    if queue.is_at_once(options):
        quiet_libraries()
        return queue.run_at_once(options, overrides_of(options))
    if queue.is_queue(options):
        quiet_libraries()
        return queue.run_queue(options, overrides_of(options))
    options.overrides = [*options.overrides, *queue.notify_overrides(options)]
    return _begin(task_path(options.task[0]), options)


def _begin(task: Path, options: argparse.Namespace) -> int:
    from graphs.context import new_run

    quiet_libraries()
    return _work(new_run(task, overrides_of(options), options.runs, options.name), options)


def _resume(options: argparse.Namespace) -> int:
    from graphs.control.extension import as_changes
    from memory.run.naming import as_typed
    from ui.control.work import exit_code, extend

    quiet_libraries()
    if not options.worker and (found := queue.named(options)):
        return queue.resume_queue(found, options)
    folder = find_run(options)
    if options.overrides:
        extend(folder, as_changes(options.overrides))
    if not folder.outcome() or options.worker:
        return _work(folder, options)
    if not folder.reported:
        _work(folder, options)
    print(f"{folder.name} has finished. Its report: {folder.report_html}")
    print(f"To go on, extend it, such as with: nesylora resume {as_typed(folder.path)} --set budget.rounds=N")
    return exit_code(folder)


def _work(folder: "RunFolder", options: argparse.Namespace) -> int:
    from memory.run.naming import as_typed
    from ui.control.work import detach, work

    if options.detach:
        return detach(folder)
    options.ending.advice = f"What was completed is kept; go on with: nesylora resume {as_typed(folder.path)}"
    supervised = getattr(options, "supervised", False)
    return work(folder, options.ending, json=options.json, supervised=supervised)


def _eval(options: argparse.Namespace) -> int:
    from ui.commands.evaluate import score

    quiet_libraries()
    return score(options.task, options.prompt, options.adapter, options.overrides, options.show)


def _report(options: argparse.Namespace) -> int:
    from eval.tasks.task import build_task, load_config
    from ui.report.write import write_report

    folder = find_run(options)
    with folder.as_begun():
        task = build_task(load_config(folder.task_file), Path(folder.about.source))
    written = write_report(folder, (*task.validation, *task.test))
    print(written)
    if options.open:
        import webbrowser

        webbrowser.open(written.as_uri())
    return 0


def _export(options: argparse.Namespace) -> int:
    from ui.commands.export import export

    quiet_libraries()
    return export(find_run(options), options)


def _runs(options: argparse.Namespace) -> int:
    from ui.commands.runs import list_runs

    return list_runs(options.runs, options.json)


def _doctor(options: argparse.Namespace) -> int:
    from ui.commands.cluster import cluster
    from ui.commands.doctor import doctor

    if options.cluster:
        return cluster(options.cluster, options.runs)
    return doctor(options.runs)


def _version() -> str:
    try:
        return version("nesylora")
    except PackageNotFoundError:
        return "from a checkout"
