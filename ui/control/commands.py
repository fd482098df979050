"""`nesylora ctl` and `nesylora attach`: parsing, which loads nothing heavy, and what each says."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphs.control.steering import RunStatus, Steering
    from memory.run.folder import RunFolder

EXIT_CODES = """\
exit codes:
  0    the target is reached; or the command did what it was asked
  1    failed: the message says why, and what was completed is kept
  2    bad input: nothing was begun
  3    busy: another process has the run
  4    the run has ended below its target, and gained something
  5    the run has ended, and gained nothing
  129  SIGHUP, 130 Ctrl-C, 143 SIGTERM: stopped; nesylora resume goes on"""
LETS_GO = 120.0  # seconds in which a process that is told to stop lets go of its run


class LateParser(argparse.ArgumentParser):
    """A parser that gets its last options once it is used, such as those of a model that takes a while to load."""

    late: "Callable[[argparse.ArgumentParser], None] | None" = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.late:
            late, self.late = self.late, None
            late(self)
        return super().parse_known_args(args, namespace)


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`attach` and `ctl`."""
    attach = commands.add_parser("attach", help="follow a run that another process works on; Ctrl-C leaves it working")
    _add_run(attach)
    attach.set_defaults(do=_attach)
    control = commands.add_parser("ctl", help="steer a run that another process works on: pause, extend, cancel, stop")
    what = control.add_subparsers(metavar="WHAT", required=True, parser_class=LateParser)
    listing = what.add_parser("list", help="the runs that a process works on now")
    _add_folder(listing)
    listing.set_defaults(do=_list)
    for name, help, do in (
        ("status", "what a run is doing", _status),
        ("pause", "stop after the step under way; --now: break it off, and do it again later", _pause),
        ("resume", "go on after a pause, or for so many rounds unasked", _resume),
        ("extend", "set other limits, also of a run that has ended: it is opened again", _extend),
        ("cancel", "break the action under way off; it stays cancelled, and the run goes on", _cancel),
        ("finish", "end the run after the step under way: open the test rows, write the report", _finish),
        ("stop", "end the process, cleanly; nesylora resume goes on", _stop),
        ("attach", "the same as nesylora attach", _attach),
    ):
        command = what.add_parser(name, help=help)
        _add_run(command)
        command.set_defaults(do=do)
        if name == "pause":
            command.add_argument("--now", action="store_true", help="break the step under way off")
        if name == "resume":
            command.add_argument("--rounds", type=int, metavar="N", help="of a run that asks: so many go unasked")
        if name == "extend":
            command.late = _add_limits


def _add_limits(extend: argparse.ArgumentParser) -> None:
    """The limits that the config model has."""
    from agent.records.limits import OtherLimits

    extend.description = "Limits hold for the whole run, what is done included. `none` lifts one of the budget."
    for name, limit in OtherLimits.model_fields.items():
        extend.add_argument(f"--{name.replace('_', '-')}", metavar="N", help=limit.description)


def add_ways(command: argparse.ArgumentParser) -> None:
    """How a run is worked on."""
    command.add_argument("--detach", action="store_true", help="in the background; follow it with nesylora attach")
    command.add_argument("--json", action="store_true", help="for scripts: print events as lines of JSON")
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXIT_CODES


def add_resume_options(command: argparse.ArgumentParser) -> None:
    """What `resume` takes beside the run: other limits, and how the run is worked on."""
    command.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="set another limit, as budget.rounds=9 or target=0.9 (all: nesylora ctl extend --help); repeatable",
    )  # fmt: skip
    add_ways(command)
    command.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # as `--detach` starts it
    command.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", nargs="?", help="its name or folder; default: the only one that a process works on")
    _add_folder(command)


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="default: ./runs")
    command.add_argument("--json", action="store_true", help="for scripts: one JSON record a line")


# --- the commands ----------------------------------------------------------------------------------


def _attach(options: argparse.Namespace) -> int:
    from memory.run.naming import as_typed
    from ui.control.follow import follow

    folder = _folder(options)
    back = f"nesylora attach {as_typed(folder.path)}"
    options.ending.advice = f"Run {folder.name} goes on without it. Back to it: {back}"
    return follow(folder, options.json)


def _list(options: argparse.Namespace) -> int:
    from graphs.control.client import status_of

    found = [status_of(folder) for folder, _ in _live(options.runs)]
    if not found and not options.json:
        print(f"No process works on a run in {options.runs}.", file=sys.stderr)
    for status in found:
        _show(status, options.json)
    return 0


def _status(options: argparse.Namespace) -> int:
    from graphs.control.client import status_of

    return _show(status_of(_folder(options)), options.json)


def _pause(options: argparse.Namespace) -> int:
    status = _steering(options).pause(options.now)
    if status.condition == "working":
        when = "as soon as the step is broken off" if options.now else "after the step under way"
        print(f"It pauses {when}.", file=sys.stderr)
    return _show(status, options.json)


def _resume(options: argparse.Namespace) -> int:
    return _show(_steering(options).go_on(options.rounds), options.json)


def _cancel(options: argparse.Namespace) -> int:
    status = _steering(options).cancel_step()
    print("The action under way is cancelled; its round ends without it.", file=sys.stderr)
    return _show(status, options.json)


def _finish(options: argparse.Namespace) -> int:
    return _show(_steering(options).finish(), options.json)


def _extend(options: argparse.Namespace) -> int:
    from graphs.control.client import settled
    from graphs.control.extension import KEYS, as_changes
    from memory.run.naming import as_typed
    from ui.control.work import extend

    folder = _folder(options)
    changes = as_changes([f"{key}={value}" for key, name in KEYS.items() if (value := getattr(options, name))])
    if remote := settled(folder):
        return _show(remote.extend(**changes), options.json)
    extend(folder, changes)
    print(f"Go on with: nesylora resume {as_typed(folder.path)}")
    return 0


def _stop(options: argparse.Namespace) -> int:
    """Waits until the process has let go, so that the next command finds the run free."""
    from graphs.control.client import attach, status_of
    from memory.run.naming import as_typed
    from memory.storage.lock import holder

    folder = _folder(options)
    status = attach(folder).leave()
    until = time.monotonic() + LETS_GO
    while holder(folder.lock_path) and time.monotonic() < until:
        time.sleep(0.1)
    if holder(folder.lock_path):
        print(f"Process {status.pid} ends after the batch under way.", file=sys.stderr)
        return 3
    print(f"Process {status.pid} has stopped. Go on with: nesylora resume {as_typed(folder.path)}", file=sys.stderr)
    return _show(status_of(folder), options.json)


# --- what they share -------------------------------------------------------------------------------


def _steering(options: argparse.Namespace) -> "Steering":
    from graphs.control.client import attach

    return attach(_folder(options))


def _folder(options: argparse.Namespace) -> "RunFolder":
    """The run that is named; else the only one that a process works on."""
    from agent.errors import BadInput
    from memory.run.folder import RunFolder

    if options.run:
        path = Path(options.run)
        return RunFolder.open(path if (path / "run.json").is_file() else options.runs / options.run)
    found = [folder for folder, _ in _live(options.runs)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(folder.name for folder in found) or f"no process works on a run in {options.runs}"
    raise BadInput(f"Name the run: {names}. (nesylora runs lists all.)")


def _live(root: Path) -> "Sequence[tuple[RunFolder, Steering]]":
    from graphs.control.client import live
    from memory.run.folder import runs

    return [(folder, remote) for folder in runs(root) if (remote := live(folder))]


def _show(status: "RunStatus", as_json: bool) -> int:
    from ui.control.states import in_words

    if as_json:
        print(json.dumps(status.model_dump(mode="json"), ensure_ascii=False))
    else:
        print(in_words(status))
    return 0
