"""`nesylora run A B C --overnight` and `nesylora queue`: parsing, which loads nothing heavy."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ui.queue.place import HERE

if TYPE_CHECKING:
    from agent.records.queue import NightLimits
    from memory.queue import QueueFolder

MORNING = "07:00"
LIMITS = {
    "until": "such as 07:00, or '2026-11-28 07:00'; all is done by then",
    "minutes": "of work, over all evenings",
    "usd": "for the external LLM, and answers of `engine: openai`",
    "llm-tokens": "of the external LLM, in and out",
    "train-tokens": "trained on",
}


def add_limits(command: argparse.ArgumentParser) -> None:
    """What all tasks of a queue may use together."""
    group = command.add_argument_group("for all tasks together, beside what each task.yaml allows")
    group.add_argument("--until", metavar="TIME", help=LIMITS["until"])
    group.add_argument("--minutes", type=float, metavar="N", help=LIMITS["minutes"])
    group.add_argument("--usd", type=float, metavar="N", help=LIMITS["usd"])
    group.add_argument("--llm-tokens", type=int, metavar="N", help=LIMITS["llm-tokens"])
    group.add_argument("--train-tokens", type=int, metavar="N", help=LIMITS["train-tokens"])
    group.add_argument(
        "--notify", metavar="COMMAND|URL", default="", help="is told, in JSON, at the end and at trouble"
    )


def add_overnight(command: argparse.ArgumentParser) -> None:
    """The options that make a queue of `run`."""
    command.add_argument(
        "--overnight", action="store_true",
        help=f"a queue, also of one task, until {MORNING} if no limit is named; it goes on when the terminal is closed",
    )  # fmt: skip
    command.add_argument(
        "--skip-broken", action="store_true",
        help="of several tasks, leave out those that cannot be used, and say which; else nothing is begun",
    )  # fmt: skip
    add_limits(command)


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`queue` and its parts."""
    queue = commands.add_parser("queue", help="several tasks, one after another: nesylora run A B; add, resume, list")
    what = queue.add_subparsers(metavar="WHAT", required=True)
    add = what.add_parser("add", help="put a task behind the others, also while they are worked on")
    add.add_argument("task", help="a task.yaml, or the folder that holds it")
    add.add_argument("--queue", metavar="NAME", help="its name or folder; default: the newest")
    add.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    _add_folder(add)
    add.set_defaults(do=_add)
    resume = what.add_parser("resume", help="go on with a queue that was stopped or killed, or is given more")
    _add_name(resume)
    resume.add_argument("--detach", action="store_true", help="in the background")
    resume.add_argument("--json", action="store_true", help="for scripts: print what happens as lines of JSON")
    resume.add_argument("--overnight", action="store_true", help="go on when the terminal is closed")
    add_limits(resume)
    resume.set_defaults(do=_resume)
    extend = what.add_parser("extend", help="set other limits for a queue, also while it is worked on; none lifts one")
    _add_name(extend)
    for option, help in LIMITS.items():
        extend.add_argument(f"--{option}", metavar="TIME" if option == "until" else "N", help=help)
    extend.set_defaults(do=_extend)
    remove = what.add_parser("remove", help="take a task out that is not worked on")
    remove.add_argument("task", help="its number or its name, as queue status shows them")
    remove.add_argument("--queue", metavar="NAME", help="its name or folder; default: the newest")
    _add_folder(remove)
    remove.set_defaults(do=_remove)
    work = what.add_parser("work")  # without help: as `--detach` starts it, with limits that are written already
    _add_name(work)
    work.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    work.set_defaults(do=_work)
    status = what.add_parser("status", help="what has become of each task")
    _add_name(status)
    status.set_defaults(do=_status)
    listing = what.add_parser("list", help="the queues there are")
    _add_folder(listing)
    listing.set_defaults(do=_list)


def is_queue(options: argparse.Namespace) -> bool:
    """Whether `run` is asked for a queue."""
    named = (options.until, options.minutes, options.usd, options.llm_tokens, options.train_tokens)
    return (
        len(options.task) > 1 or options.overnight or options.skip_broken or any(value is not None for value in named)
    )


def is_at_once(options: argparse.Namespace) -> bool:
    """Whether `run` is asked for tasks side by side."""
    return options.on != HERE or options.jobs is not None or options.gpus_each is not None


def notify_overrides(options: argparse.Namespace) -> list[str]:
    """`--notify` of a single run, as a setting of its task."""
    if not options.notify:
        return []
    key = "url" if options.notify.startswith(("http://", "https://")) else "command"
    return [f"notify.{key}={json.dumps(options.notify)}"]


def run_queue(options: argparse.Namespace, overrides: list[str]) -> int:
    """`nesylora run` with several tasks, or overnight."""
    from graphs.queue.making import new_queue
    from ui.queue.words import say_remarks, say_that_tasks_are_read, skipped_in_words
    from ui.queue.work import begin, show_estimate

    tasks = [Path(task) for task in options.task]
    if not options.json:
        say_that_tasks_are_read(len(tasks))
    queue = new_queue(
        tasks, limits_of(options), options.runs, overrides, options.name, options.notify, options.skip_broken
    )
    for row in queue.read().skipped:
        print(f"nesylora: {skipped_in_words(row)}", file=sys.stderr)
    say_remarks([item.added for item in queue.read().items])
    if not options.json:
        show_estimate(queue)
    return begin(queue, options.ending, detached=options.detach, json=options.json, overnight=options.overnight)


def run_at_once(options: argparse.Namespace, overrides: list[str]) -> int:
    """`nesylora run` with `--on` or `--jobs`. Raises BadInput: an option does not go with it."""
    from agent.errors import BadInput
    from ui.queue.place import place_of
    from ui.queue.spread import run_spread

    if given := [
        name for name in ("overnight", "detach", "name", "notify", "json", "skip_broken") if getattr(options, name)
    ]:
        raise BadInput(f"--{given[0].replace('_', '-')} does not go with --on or --jobs.")
    tasks = [Path(task) for task in options.task]
    return run_spread(tasks, place_of(options), options.runs, overrides, limits_of(options))


def resume_queue(queue: "QueueFolder", options: argparse.Namespace) -> int:
    """Take a queue up again. Options that `nesylora resume` does not have are taken as not named."""
    from agent.records.queue import NightLimits
    from ui.queue.work import begin, resume

    limits = limits_of(options) if hasattr(options, "until") else NightLimits()
    if not resume(queue, limits, getattr(options, "notify", ""), options.json):
        return 0
    overnight = getattr(options, "overnight", False)
    return begin(queue, options.ending, detached=options.detach, json=options.json, overnight=overnight)


def named(options: argparse.Namespace) -> "QueueFolder | None":
    """The queue that `nesylora resume` names; or the newest, where nothing is named and the newest run is one of it."""
    from memory.queue import QueueFolder, queues
    from memory.run.folder import runs

    if options.run:
        places = (Path(options.run), options.runs / options.run)
        found = next((path for path in places if (path / "queue.jsonl").is_file()), None)
        return QueueFolder.open(found) if found else None
    newest, latest = next(iter(queues(options.runs)), None), next(iter(runs(options.runs)), None)
    if newest is None or latest is None:
        return newest
    items = newest.read().items
    ours = {start.run for item in items for start in item.started}
    return newest if latest.name in ours and any(item.ended is None for item in items) else None


def limits_of(options: argparse.Namespace) -> "NightLimits":
    """The limits that are named."""
    from pydantic import ValidationError

    from agent.errors import BadInput
    from agent.records.queue import NightLimits
    from graphs.queue.making import next_time
    from memory.queue import now

    until, typed = options.until, True
    named = [getattr(options, name) for name in ("minutes", "usd", "llm_tokens", "train_tokens")]
    if until is None and options.overnight and all(value is None for value in named) and options.do is not _resume:
        until, typed = MORNING, False
    try:
        return NightLimits(
            until=next_time(until, now(), typed=typed) if until else None,
            minutes=options.minutes, usd=options.usd, llm_tokens=options.llm_tokens, train_tokens=options.train_tokens,
        )  # fmt: skip
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadInput(f"--{str(fault['loc'][0]).replace('_', '-')} {fault['input']}: {fault['msg']}") from None


# --- the commands ----------------------------------------------------------------------------------


def _add(options: argparse.Namespace) -> int:
    from ui.queue.changes import add

    return add(_folder(options, options.queue), Path(options.task), options.overrides)


def _remove(options: argparse.Namespace) -> int:
    from ui.queue.changes import remove

    return remove(_folder(options, options.queue), options.task)


def _extend(options: argparse.Namespace) -> int:
    from ui.queue.changes import extend

    named = {name: value for name in LIMITS if (value := getattr(options, name.replace("-", "_"))) is not None}
    return extend(_folder(options, options.queue), named)


def _resume(options: argparse.Namespace) -> int:
    return resume_queue(_folder(options, options.queue), options)


def _work(options: argparse.Namespace) -> int:
    from ui.queue.work import begin

    return begin(_folder(options, options.queue), options.ending, json=options.json)


def _status(options: argparse.Namespace) -> int:
    from ui.queue.work import show_status

    return show_status(_folder(options, options.queue))


def _list(options: argparse.Namespace) -> int:
    from memory.queue import queues
    from ui.queue.work import state_in_words

    found = queues(options.runs)
    if not found:
        print(f"No queues in {options.runs} yet. Start one with: nesylora run TASK TASK")
    for queue in found:
        print(f"{queue.name}: {state_in_words(queue)}")
    return 0


def _add_name(command: argparse.ArgumentParser) -> None:
    command.add_argument("queue", nargs="?", help="its name or folder; default: the newest")
    _add_folder(command)


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="default: ./runs")


def _folder(options: argparse.Namespace, name: str | None) -> "QueueFolder":
    from agent.errors import BadInput
    from memory.queue import QueueFolder, queues

    if name:
        path = Path(name)
        return QueueFolder.open(path if (path / "queue.jsonl").is_file() else options.runs / name)
    found = queues(options.runs)
    if not found:
        raise BadInput(f"there are no queues in {options.runs} yet; start one with: nesylora run TASK TASK --overnight")
    return found[0]
