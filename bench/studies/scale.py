"""A night's queue on more workers than there are here: simulated, and the simulation checked against real workers.

    python -m bench.studies.scale simulate --workers 1 2 4 8          # a night of 24 tasks
    python -m bench.studies.scale check --on ray --workers 2          # sleeping stand-ins, simulated and real
    python -m bench.studies.scale overhead --on ray --workers 16      # what scheduling costs
    python -m bench.studies.scale train --workers 1 2 1 2             # one training by one process, and by two
    python -m bench.studies.scale train --workers 2 --shard           # the base divided between both

Tasks are taken in order, each by the worker that is free first: so do both executors. A stand-in sleeps as long as its
task would take; it needs no core, so that 16 of them fit on two.
"""

import argparse
import heapq
import random
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import NamedTuple

from agent.example_tasks import shipped
from agent.records.actions import TrainLora
from agent.records.training import TrainingJob, read_training
from eval.tasks.task import load_task
from graphs.workers.executors import Crew, Place, crew
from tools.training.parallel import Job, run_job

# Minutes of a task: rounds of 5 to 40 minutes, 2 to 6 of them, as of small models on one GPU; drawn once, by seed 0.
ROUND, ROUNDS, TASKS = (5.0, 40.0), (2, 6), 24
START = 0.5  # minutes of a task's process until it works: imports, and the model read from a local disk


class Night(NamedTuple):
    """Minutes (or seconds: as the tasks were given) until all is done, and the share of it that workers work."""

    length: float
    busy: float


def a_night(tasks: int = TASKS, seed: int = 0) -> list[float]:
    """Minutes that each task takes."""
    draw = random.Random(seed)
    return [sum(draw.uniform(*ROUND) for _ in range(draw.randint(*ROUNDS))) for _ in range(tasks)]


class Working(NamedTuple):
    """A task on a worker: when it began there, when it will be done, and how long it works after its start."""

    begun: float
    end: float
    work: float


def simulated(tasks: Sequence[float], workers: int, start: float, lost: Sequence[float] = ()) -> Night:
    """A discrete-event simulation: an event is a task that is done, or a worker that is lost.

    Args:
        start: time before a task works, each time it begins.
        lost: at these times the worker that has been at its task longest is lost, and another begins the task again.
            What its run has completed is kept: on average half a round is lost, an eighth of a task.
    """
    waiting, under_way = deque(tasks), dict[int, Working]()
    events: list[tuple[float, int]] = [(time, -1) for time in lost]
    heapq.heapify(events)
    busy = now = 0.0

    def begin(worker: int, work: float) -> None:
        under_way[worker] = Working(now, now + start + work, work)
        heapq.heappush(events, (now + start + work, worker))

    for worker in range(min(workers, len(tasks))):
        begin(worker, waiting.popleft())
    while under_way:
        now, worker = heapq.heappop(events)
        if worker < 0:
            worker, task = min(under_way.items(), key=lambda item: item[1].begun)
            done = max(0.0, now - task.begun - start)
            busy += now - task.begun
            begin(worker, task.work - done + min(done, task.work / 8))
        elif worker in under_way and under_way[worker].end == now:  # else it was lost meanwhile
            busy += now - under_way.pop(worker).begun
            if waiting:
                begin(worker, waiting.popleft())
    return Night(now, busy / (workers * now))


def stand_in(seconds: float) -> None:
    """Works as long; a function of ours, for Ray takes no built-in one."""
    time.sleep(seconds)


def real(tasks: Sequence[float], workers: Crew) -> Night:
    """The same with stand-ins that sleep: seconds."""
    began = time.perf_counter()
    for future in [workers.submit(stand_in, task) for task in tasks]:
        future.result()
    length = time.perf_counter() - began
    return Night(length, sum(tasks) / (workers.slots * length))


def show_simulation(workers: Sequence[int]) -> None:
    tasks = a_night()
    alone = simulated(tasks, 1, START).length
    print(f"{len(tasks)} tasks of {min(tasks):.0f} to {max(tasks):.0f} minutes, {sum(tasks) / 60:.1f} hours of work\n")
    print("| workers | hours | faster | workers busy | the longest first, hours | one worker lost each hour, hours |")
    print("|---|---|---|---|---|---|")
    for count in workers:
        night = simulated(tasks, count, START)
        sorted_night = simulated(sorted(tasks, reverse=True), count, START)
        shaken = simulated(tasks, count, START, [60.0 * hour for hour in range(1, 48)])
        print(
            f"| {count} | {night.length / 60:.2f} | {alone / night.length:.2f} x | {night.busy:.0%} "
            f"| {sorted_night.length / 60:.2f} | {shaken.length / 60:.2f} |"
        )


def warmed(workers: Crew) -> float:
    """Seconds until every worker has started."""
    began = time.perf_counter()
    with TemporaryDirectory() as place:
        for future in [workers.submit(gather, place, workers.slots, number) for number in range(workers.slots)]:
            future.result()
    return time.perf_counter() - began


def gather(place: str, count: int, number: int) -> None:
    """Waits until so many are here: a worker that is done early would be used again in place of one that starts."""
    Path(place, str(number)).touch()
    while len(list(Path(place).iterdir())) < count:
        time.sleep(0.05)


def check(place: Place) -> None:
    """The night's tasks, a second for each minute of a twelfth of it, on real workers and simulated."""
    tasks = [task / 12 for task in a_night()]
    with crew(place) as workers:
        started = warmed(workers)
        found = real(tasks, workers)
        expected = simulated(tasks, workers.slots, 0.0)
    print(f"{workers.slots} workers, started in {started:.1f} s; {len(tasks)} tasks, {sum(tasks):.1f} s")
    print(f"simulated {expected.length:.2f} s, real {found.length:.2f} s: {found.length / expected.length - 1:+.1%}")


def overhead(place: Place, seconds: float, rounds: int) -> None:
    """Tasks of equal length, so many for each worker: all that is beyond their length is scheduling."""
    with crew(place) as workers:
        started = warmed(workers)
        found = real([seconds] * (rounds * workers.slots), workers)
        short = [real([0.0], workers).length for _ in range(20)]
    ideal = seconds * rounds
    print(f"{workers.slots} workers, started in {started:.1f} s; {rounds * workers.slots} tasks of {seconds:g} s")
    print(f"{found.length:.2f} s of {ideal:g} s, {found.length / ideal - 1:+.2%}")
    print(f"one task that does nothing: {1000 * fmean(short):.1f} ms")


def training(processes: int, shard: bool) -> None:
    """An epoch of the example task's rows on the embedded model, by so many processes; the base may be divided."""
    task = load_task(shipped("valley"))
    rows = tuple((task.config.prompt.prompt(), example) for example in task.train)
    lora = task.config.lora.model_copy(update={"replay": 0.0})
    with TemporaryDirectory() as place:
        job = Job(
            model=task.config.model, device="cpu", dtype="float32", chat_template_kwargs={}, lora=lora, shard=shard,
            training=TrainingJob(
                adapter="a", rows=rows, folder=Path(place, "a"), parent=None, seed=0,
                action=TrainLora(epochs=1, rank=lora.rank, learning_rate=lora.learning_rate, enough=0),
            ),
            parent_folder=None,
        )  # fmt: skip
        began = time.perf_counter()
        (Path(place) / "job").mkdir()
        run_job(job, Path(place) / "job", processes, lambda said: None)
        whole, done = time.perf_counter() - began, read_training(Path(place) / "a")
        sent = (Path(place) / "a" / "adapter_model.safetensors").stat().st_size
    print(
        f"{processes} processes: {len(done.steps)} steps in {done.seconds:.1f} s; {done.tokens:,} forward tokens; "
        f"{sent / 1e6:.1f} MB of gradients added up in each; with start and end "
        f"{whole:.1f} s; last loss {done.steps[-1].loss:.6f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["simulate", "check", "overhead", "train"])
    parser.add_argument("--on", default="here")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=10.0, help="of a task, for overhead (default: 10)")
    parser.add_argument("--rounds", type=int, default=6, help="tasks of each worker, for overhead (default: 6)")
    parser.add_argument("--shard", action="store_true", help="for train: divide the base among the processes")
    options = parser.parse_args()
    if options.what == "simulate":
        show_simulation(options.workers)
        return
    for count in options.workers:
        if options.what == "train":
            training(count, options.shard)
            continue
        place = Place(options.on, count)
        check(place) if options.what == "check" else overhead(place, options.seconds, options.rounds)


if __name__ == "__main__":
    main()
