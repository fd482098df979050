"""The commands `nesylora compare` and `nesylora bench`. Parsing imports nothing heavy."""

import argparse
from pathlib import Path

from agent.example_tasks import shipped
from ui.options import add_settings, quiet_libraries, task_path
from ui.queue.place import add_place, place_of

COMPARED = ("rules", "paper", "lora-only", "prompt-only", "p -> w -> p")
BENCHMARKED = (
    "rules", "learned", "paper", "lora-only", "prompt-only", "p -> w", "w -> p", "p -> w -> p", "alternate every 1",
    "random", "oracle",
)  # fmt: skip


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `compare` and `bench` to the command line."""
    compare = commands.add_parser("compare", help="runs side by side; or a task under several policies")
    compare.add_argument(
        "task",
        nargs="*",
        help="two runs or more, by name or folder; or a task.yaml or its folder; default: the example",
    )
    compare.add_argument("--policies", nargs="+", default=COMPARED, metavar="POLICY")
    compare.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N")
    add_place(compare, "processes at a time (default: all runs in this one)")
    add_settings(compare)
    compare.set_defaults(do=_compare)

    bench = commands.add_parser("bench", help="which policy decides well? policies, tasks and seeds at equal budget")
    parts = bench.add_subparsers(metavar="PART", required=True)
    decide = parts.add_parser(
        "decide", help="run every policy on every task with every seed, and compare them; goes on after a kill"
    )
    decide.add_argument("tasks", nargs="*", type=Path, metavar="TASK", help="default: the tasks in tasks/decide")
    decide.add_argument(
        "--policies", nargs="*", default=BENCHMARKED, metavar="POLICY",
        help="policies of a task.yaml, `oracle`, or a policy with ablations: 'rules without gate, memory'",
    )  # fmt: skip
    decide.add_argument(
        "--variant", dest="variants", action="append", default=[], metavar="'NAME: KEY=VALUE …'",
        help="what else takes part: settings under a name, such as 'slow: policy=rules lora.epochs=9'; may be repeated",
    )  # fmt: skip
    decide.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="of each task (default: 0 1 2)"
    )
    add_place(decide, "processes at a time (default: 1)")
    decide.add_argument("--name", default="decide", help="of the folder in --runs (default: decide)")
    decide.add_argument("--only-write", action="store_true", help="run nothing, write tables and plots anew")
    add_settings(decide)
    decide.set_defaults(do=_bench_decide)

    group = parts.add_parser("group", help="run what is missing of one group of a benchmark (a task with a seed)")
    group.add_argument("folder", type=Path, help="its folder")
    group.set_defaults(do=_bench_group)


def _compare(options: argparse.Namespace) -> int:
    from agent.errors import BadInput
    from bench.decisions.compare import compare
    from memory.run.folder import RunFolder
    from ui.commands.compare_runs import compare_runs

    quiet_libraries()
    if len(options.task) > 1:
        paths = [Path(name) if (Path(name) / "run.json").is_file() else options.runs / name for name in options.task]
        return compare_runs([RunFolder.open(path) for path in paths])
    named = options.task[0] if options.task else None
    if named and (options.runs / named / "run.json").is_file():
        raise BadInput(f"{named} is a run: name another one to compare it with")
    place = place_of(options)
    return compare(task_path(named), options.policies, options.seeds, options.overrides, options.runs, place)


def _bench_decide(options: argparse.Namespace) -> int:
    import shlex

    from agent.errors import BadInput
    from bench.decisions.decide import decide, plan
    from bench.decisions.output import write
    from bench.decisions.results import described, named

    folder = options.runs / options.name
    if options.only_write:
        write(folder)
        return 0
    tasks = options.tasks or sorted(shipped("decide").glob("*/task.yaml"))
    variants = [*map(named, options.policies), *map(described, options.variants)]
    if not tasks or not variants:
        raise BadInput("A benchmark needs at least one task, and one policy or variant.")
    if min(options.seeds) < 0:
        raise BadInput("There is no seed below 0.")
    place = place_of(options)
    groups = plan(tasks, variants, options.seeds, options.overrides)
    return decide(groups, folder, place, shlex.join(["nesylora", *options.arguments]))


def _bench_group(options: argparse.Namespace) -> int:
    from bench.decisions.workers import run_group

    quiet_libraries()
    return run_group(options.folder)
