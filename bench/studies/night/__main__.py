"""A night in small: a queue of three tasks with a fault every few minutes, beside the same queue undisturbed.

    python -m bench.studies.night undisturbed FOLDER
    python -m bench.studies.night faulted FOLDER [--seed 16] [--every 240]
    python -m bench.studies.night compare FOLDER

The first two may work at the same time. Faults are kills, an LLM that fails, a disk that is full (a small tmpfs, which
only root can mount), and damaged files; docs/faults.md says what came of it.
"""

import argparse
import itertools
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.studies.night.comparison import compare
from bench.studies.night.faults import plan
from bench.studies.night.gateway import Weather, gateway
from bench.studies.night.supervisor import Night
from bench.studies.night.tasks import write_tasks


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.night", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("what", choices=["undisturbed", "faulted", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=16, help="of the faults")
    parser.add_argument("--every", type=float, default=240.0, help="seconds from fault to fault, give or take half")
    parser.add_argument("--chance", type=float, default=0.15, help="of an LLM's answer to be spoiled, beside faults")
    parser.add_argument("--disk", type=int, default=1000, metavar="MB", help="size of the faulted night's disk")
    parser.add_argument("--model", default="", help="in place of the tasks' own")
    parser.add_argument("--rounds", type=int, help="of each task, in place of what is planned")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    if options.what == "compare":
        text = compare(folder / "undisturbed", folder / "faulted")
        print(text)
        (folder / "comparison.md").write_text(text)
        return 0
    return 0 if _night(folder / options.what, options) else 1


def _night(home: Path, options: argparse.Namespace) -> bool:
    faulted = options.what == "faulted"
    root = home / "runs"
    root.mkdir(parents=True, exist_ok=True)
    if faulted and not root.is_mount():
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={options.disk}m", "tmpfs", str(root)], check=True)
    weather = Weather(options.chance, options.seed) if faulted else Weather()
    with _llm() as upstream, gateway(upstream, home / "bill.jsonl", weather) as llm:
        tasks = write_tasks(home / "tasks", llm.url, options.model, options.rounds)
        night = Night(root, home / "diary.jsonl", tasks, llm)
        words = " ".join(f"{name}={value}" for name, value in vars(options).items() if value)
        night.note(0, "begun", f"{time.strftime('%Y-%m-%d %H:%M:%S')}, {words}")
        began = time.monotonic()
        done = night.work(plan(options.seed, options.every) if faulted else itertools.chain())
        night.note(time.monotonic() - began, "done" if done else "given up")
    return done


@contextmanager
def _llm() -> Iterator[str]:
    """The scripted LLM of the tests, in a process of its own: it answers equal requests equally."""
    command = [sys.executable, "-m", "tests.llm.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as server:
        try:
            assert server.stdout
            yield re.split(r"\s", server.stdout.readline())[0]
        finally:
            server.terminate()
            server.communicate()  # it prints its bill


if __name__ == "__main__":
    sys.exit(main())
