"""The command line. Parsing imports nothing heavy: `nesylora --help` answers at once."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import NesyLoraError
from agent.example_tasks import shipped
from ui.commands import init, rows
from ui.commands.export import add_export
from ui.commands.serve import add_command as add_serve
from ui.control import commands as control
from ui.control.signals import clean_ending, exit_code
from ui.mcp import command as mcp
from ui.page import command as page
from ui.queue import commands as queue
from ui.queue.place import add_place

if TYPE_CHECKING:
    from memory.run.folder import RunFolder


RESUMABLE = [["run"], ["demo"], ["resume"], ["chat"]]
AddCommands = Callable[["argparse._SubParsersAction[argparse.ArgumentParser]"], None]
"""Adds commands of a room above this one, such as the benchmark's."""


def run(arguments: Sequence[str] | None = None, more: Sequence[AddCommands] = ()) -> int:
    """Parse, run the command, and return the exit code: see `ui.control.commands.EXIT_CODES`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser(more).parse_args(arguments or ["--help"])
    options.arguments = arguments
    with clean_ending() as options.ending:
        try:
            return int(options.do(options) or 0)
        except NesyLoraError as error:
            print(f"nesylora: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt as error:
            by = f" by {error}" if str(error) else ""
            kept = " What was completed is kept; go on with: nesylora resume" if arguments[:1] in RESUMABLE else ""
            print(f"\nnesylora: stopped{by}.{kept}", file=sys.stderr)
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
    _add_run_options(demo)
    control.add_ways(demo)
    demo.set_defaults(do=_demo)

    start = commands.add_parser("run", help="adapt a model to a task")
    start.add_argument("task", nargs="+", help="a task.yaml, or the folder that holds it; several make a queue")
    _add_run_options(start)
    control.add_ways(start)
    queue.add_overnight(start)
    add_place(start, "tasks at a time, with --on (default: as many as there are cores)")
    start.set_defaults(do=_run)

    init.add_command(commands)
    rows.add_command(commands)

    resume = commands.add_parser(
        "resume", help="go on with a run that was stopped or killed, or has ended and is extended"
    )
    _add_run_name(resume)
    control.add_resume_options(resume)
    resume.set_defaults(do=_resume)

    talk = commands.add_parser("chat", help="steer a run yourself: see each plan, approve it, go back, try things")
    talk.add_argument(
        "task", nargs="?", help="a task.yaml or its folder, or the name of a run; default: the example task"
    )
    talk.add_argument("--llm", metavar="MODEL", help="an LLM that understands plain language; default: the task's own")
    talk.add_argument("--base-url", metavar="URL", help="of its OpenAI-compatible server; default: OpenAI's own")
    _add_run_options(talk)
    talk.set_defaults(do=_chat)

    score = commands.add_parser("eval", help="score a prompt, and an adapter, on a task's validation rows")
    score.add_argument("task", help="a task.yaml or its folder")
    score.add_argument("--prompt", type=Path, metavar="FILE", help="a prompt's JSON; default: the seed prompt")
    score.add_argument("--adapter", type=Path, metavar="FOLDER", help="a peft adapter; default: none")
    score.add_argument("--show", type=_count, default=5, metavar="N", help="print so many answers (default: 5)")
    score.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    score.set_defaults(do=_eval)

    report = commands.add_parser("report", help="write a run's report again, and say where it is")
    _add_run_name(report)
    report.add_argument("--open", action="store_true", help="in the browser")
    report.set_defaults(do=_report)

    taken = commands.add_parser("export", help="a run's best pair as a bundle for other engines, checked in each")
    _add_run_name(taken)
    add_export(taken)
    taken.set_defaults(do=_export)
    add_serve(commands)

    listing = commands.add_parser("runs", help="list the runs")
    _add_runs(listing)
    listing.add_argument("--json", action="store_true", help="for scripts: one JSON record a line")
    listing.set_defaults(do=_runs)
    control.add_commands(commands)
    queue.add_commands(commands)
    mcp.add_command(commands)
    page.add_command(commands)

    _add_check(
        commands.add_parser("check-llm", help="is an LLM server good enough? let it plan, edit and judge, and tell")
    )

    doctor = commands.add_parser("doctor", help="what is installed, the device, the model cache, room, and the LLM")
    _add_runs(doctor)
    doctor.add_argument(
        "--cluster", nargs="?", const="ray", metavar="ray://HOST:PORT", help="of each machine of a Ray cluster"
    )
    doctor.set_defaults(do=_doctor)
    for add_commands in more:
        add_commands(commands)
    return top


def _add_check(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, help="as the server calls it")
    command.add_argument("--base-url", metavar="URL", help="of an OpenAI-compatible server; default: OpenAI's own")
    command.add_argument("--key-variable", default="OPENAI_API_KEY", metavar="NAME", help="where the key is read from")
    command.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="of one call (default: 120)")
    command.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of a task's llm section, such as temperature=null or way=schema; may be given again",
    )  # fmt: skip
    command.add_argument(
        "--situations", type=_count, metavar="N", help="recorded situations to plan in (default: 12; 0: none)"
    )
    _add_runs(command)
    command.set_defaults(do=_check_llm)


def _add_run_options(command: argparse.ArgumentParser) -> None:
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
    _add_runs(command)


def _add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="default: ./runs")


def _add_run_name(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", nargs="?", help="its name or folder; default: the newest")
    _add_runs(command)


# --- the commands ----------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    return _begin(task_path(None), options)


def _run(options: argparse.Namespace) -> int:
    if options.on != "here" or options.jobs:
        quiet_libraries()
        return queue.run_at_once(options, _overrides(options))
    if queue.is_queue(options):
        quiet_libraries()
        return queue.run_queue(options, _overrides(options))
    options.overrides = [*options.overrides, *queue.notify_overrides(options)]
    return _begin(task_path(options.task[0]), options)


def _begin(task: Path, options: argparse.Namespace) -> int:
    from graphs.context import new_run

    quiet_libraries()
    return _work(new_run(task, _overrides(options), options.runs, options.name), options)


def _resume(options: argparse.Namespace) -> int:
    from graphs.control.extension import as_changes
    from ui.control.work import exit_code, extend

    quiet_libraries()
    if not options.worker and (found := queue.named(options)):
        return queue.resume_queue(found, options)
    folder = _find(options)
    if options.overrides:
        extend(folder, as_changes(options.overrides))
    if not folder.outcome() or options.worker:
        return _work(folder, options)
    if not folder.reported:
        _work(folder, options)
    print(f"{folder.name} has finished. Its report: {folder.report_html}")
    print(f"To go on, extend it, such as with: nesylora resume {folder.name} --set budget.rounds=N")
    return exit_code(folder)


def _work(folder: "RunFolder", options: argparse.Namespace) -> int:
    from ui.control.work import detach, work

    if options.detach:
        return detach(folder)
    supervised = getattr(options, "supervised", False)
    return work(folder, options.ending, json=options.json, supervised=supervised)


def _chat(options: argparse.Namespace) -> int:
    from eval.tasks.task import load_config
    from ui.talk.llm import chosen_llm
    from ui.terminal.chat import chat

    quiet_libraries()
    folder = _run_to_chat_about(options)
    llm = chosen_llm(load_config(folder.task_file).llm, options.llm, options.base_url)
    return chat(folder, llm)


def _run_to_chat_about(options: argparse.Namespace) -> "RunFolder":
    """The run that is named, or a new one of the task that is."""
    from agent.errors import BadInput
    from graphs.context import new_run
    from memory.run.folder import RunFolder

    for named in (Path(options.task or ""), options.runs / (options.task or "")):
        if (named / "run.json").is_file():
            if _overrides(options) or options.name:
                raise BadInput(f"the run {named.name} has its settings already: leave out --set, --policy and --name")
            return RunFolder.open(named)
    if options.task and not Path(options.task).exists():
        try:
            RunFolder.open(options.runs / options.task)
        except BadInput as error:  # with the nearest names
            raise BadInput(f"{options.task} is no task.yaml and no folder of one. {error}") from None
    return new_run(task_path(options.task), _overrides(options), options.runs, options.name)


def _eval(options: argparse.Namespace) -> int:
    from ui.commands.evaluate import score

    quiet_libraries()
    return score(options.task, options.prompt, options.adapter, options.overrides, options.show)


def _report(options: argparse.Namespace) -> int:
    from eval.tasks.task import build_task, load_config
    from ui.report.write import write_report

    folder = _find(options)
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
    return export(_find(options), options)


def _runs(options: argparse.Namespace) -> int:
    from ui.commands.runs import list_runs

    return list_runs(options.runs, options.json)


def _check_llm(options: argparse.Namespace) -> int:
    from agent.errors import BadInput
    from ui.commands.check_llm import SITUATIONS, check_llm, settings_of

    quiet_libraries()
    if options.base_url and not options.base_url.startswith(("http://", "https://")):
        raise BadInput(f"--base-url {options.base_url}: begin it with http:// or https://")
    server = {"model": options.model, "base_url": options.base_url, "key_variable": options.key_variable}
    settings = settings_of(server | {"timeout": options.timeout, "patience": 0}, options.settings)
    situations = SITUATIONS if options.situations is None else options.situations
    return check_llm(settings, situations, options.runs)


def _doctor(options: argparse.Namespace) -> int:
    from ui.commands.cluster import cluster
    from ui.commands.doctor import doctor

    if options.cluster:
        return cluster(options.cluster, options.runs)
    return doctor(options.runs)


# --- what they share -------------------------------------------------------------------------------


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number of answers")
    return int(text)


def task_path(name: str | None) -> Path:
    return Path(name) if name else shipped("valley")


def _overrides(options: argparse.Namespace) -> list[str]:
    return [*options.overrides, *([f"policy={options.policy}"] if options.policy else [])]


def _find(options: argparse.Namespace) -> "RunFolder":
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
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\b")


def _version() -> str:
    try:
        return version("nesylora")
    except PackageNotFoundError:
        return "from a checkout"
