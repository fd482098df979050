"""The cost of everything around the model: start-up, graph, checkpoints, ledger, report, prompt memory.

python -m bench.overheads [--rounds 500] [--prompts 100000] [--memory FOLDER]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench.overheads.long_run import RoundCost, long_run, make_task
from bench.overheads.many_prompts import many_prompts
from bench.overheads.overhead import Overhead
from memory.run.folder import RunFolder
from tools.model import embedded

ROUND_SECONDS = 60  # of a round of the demo, on two cores
WINDOW = 20  # rounds whose median is shown

# With a third argument, garbage collection runs while libraries are loaded, as it does if nothing pauses it.
TO_FIRST_ANSWER = """
import gc, sys, time
began = time.monotonic()
if len(sys.argv) > 3:
    gc.disable = gc.freeze = gc.unfreeze = lambda: None
import nesylora
from graphs.context import Silent
class Stop(Exception): ...
class Until(Silent):
    def __call__(self, what, done, total, note=""):
        if what == "answering": raise Stop
try:
    nesylora.adapt(sys.argv[1], runs=sys.argv[2], listener=Until())
except Stop:
    print(time.monotonic() - began)
"""


def overheads(rounds: int = 500, prompts: int = 100_000, memory: Path | None = None) -> list[Overhead]:
    """All rows of the table. It takes minutes, most of them to fill the prompt memory.

    Args:
        memory: a folder that keeps the filled memory for later calls.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = [*_start(root)]
        run, costs = long_run(root / "long", rounds)
        rows += [*_rounds(costs), *_report(run)]
        return [*rows, *_recall(memory or root / "memory", prompts)]


def _start(root: Path) -> Iterator[Overhead]:
    """Console commands as a user starts them, each in its own process."""
    root.joinpath("start").mkdir()
    task = make_task(root / "start", 1)
    help_ = median(_until_line("--help") for _ in range(5))
    yield Overhead(name="nesylora --help", value=help_, unit="s", wanted="< 0.3")
    runs = str(root / "start" / "runs")
    first = median(_until_line("run", str(task), "--runs", runs) for _ in range(5))
    yield Overhead(name="nesylora run, to its first line", value=first, unit="s", wanted="< 1")
    if not embedded.is_ready():
        return
    ready: dict[str, list[float]] = {"": [], "collect": []}
    for _ in range(3):
        for mode, times in ready.items():  # A B A B
            times.append(_to_first_answer(runs, mode))
    paused, collecting = median(ready[""]), median(ready["collect"])
    yield Overhead(name="nesylora run, to the first answer's begin", value=paused, unit="s")
    name = "that, as a share of the time with the collector at work meanwhile"
    yield Overhead(name=name, value=paused / collecting, unit="", wanted="< 0.9")


def _until_line(*arguments: str) -> float:
    """Seconds until a command's first line."""
    began = time.perf_counter()
    command = [sys.executable, "-c", "import nesylora; nesylora.main()", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - began
        process.kill()
    return seconds


def _to_first_answer(runs: str, *mode: str) -> float:
    task = str(Path(__file__).parents[2] / "tasks" / "valley")
    command = [sys.executable, "-W", "ignore", "-c", TO_FIRST_ANSWER, task, runs, *filter(None, mode)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _rounds(costs: Sequence[RoundCost]) -> Iterator[Overhead]:
    """What the early, middle and last rounds cost, and how the checkpoints grow."""
    for number in dict.fromkeys((min(50, len(costs)), len(costs) // 2, len(costs))):
        window = costs[max(0, number - WINDOW) : number]
        for part in ("graph", "checkpoint", "ledger", "report"):
            value = median(cost.parts[part] for cost in window)
            yield Overhead(name=f"{part}, round {number}", value=value, unit="ms", wanted="< 50")
        share = median(sum(cost.parts.values()) for cost in window) / (10 * ROUND_SECONDS)
        name = f"all of it, round {number}, of a round of {ROUND_SECONDS} s"
        yield Overhead(name=name, value=share, unit="%", wanted="< 1")
        size = costs[number - 1].checkpoint_bytes
        yield Overhead(name=f"checkpoints after round {number}", value=size / 1000, unit="kB")
    if remembered := [cost.parts["memory"] for cost in costs if cost.parts["memory"]]:
        yield Overhead(name="a prompt remembered, where a round has one", value=median(remembered), unit="ms")


def _report(run: RunFolder) -> Iterator[Overhead]:
    from ui.report.write import write_report

    page, times = run.report_html, []
    for _ in range(5):
        began = time.perf_counter()
        write_report(run)
        times.append(time.perf_counter() - began)
    yield Overhead(name="the whole report", value=1000 * median(times), unit="ms")
    yield Overhead(name="report.html", value=page.stat().st_size / 1000, unit="kB")
    yield Overhead(name="report.md", value=run.report_md.stat().st_size / 1000, unit="kB")
    if browser := shutil.which("chromium"):
        with tempfile.TemporaryDirectory() as profile:
            flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
            began = time.perf_counter()
            shown = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120)
        assert "rounds were kept" in shown.stdout
        yield Overhead(name="chromium starts and shows it", value=time.perf_counter() - began, unit="s")


def _recall(memory: Path, prompts: int) -> Iterator[Overhead]:
    cost, among = many_prompts(memory, prompts), f"among {prompts:,} prompts"
    yield Overhead(name=f"recall {among}, two in seven fit", value=cost.recall, unit="ms", wanted="< 50")
    yield Overhead(name=f"recall {among}, one in 21 fits", value=cost.rare_recall, unit="ms")
    yield Overhead(name=f"opening the memory {among}, Chroma's import included", value=cost.opening, unit="ms")
    yield Overhead(name=f"opening it again {among}", value=cost.reopening, unit="ms")
    yield Overhead(name="embedding what is asked", value=cost.embedding, unit="ms")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--memory", type=Path, help="a folder that keeps the filled prompt memory for the next time")
    options = parser.parse_args()
    for row in overheads(options.rounds, options.prompts, options.memory):
        print(f"{row.name:68} {row.value:10,.3g} {row.unit:2}  {row.wanted}")


if __name__ == "__main__":
    main()
