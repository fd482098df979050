"""`python -m bench.studies.probes`: what edits do to rows of the practice tasks, for tools/diagnosis/probes.jsonl.

Each task is run by short fixed schedules, which take the same actions from the same pairs, and which share all answers
and adapters. Then the failing rows of each pair that was edited are probed, and labelled by what the edit did to them.
The same command continues where it was stopped.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.errors import NesyLoraError
from agent.records.examples import Candidate
from agent.records.signal import Probe
from graphs.context import Context, new_run
from graphs.rows.labels import pairs_before, repaired_rows
from graphs.services.run import RunServices
from graphs.session import open_session
from memory.run.folder import RunFolder
from memory.storage.disk import write_atomically
from tools.diagnosis.classify import gaps, need_by_rules
from tools.diagnosis.features import is_complete

SCHEDULES = ("pp",)  # gives labels of the seed pair, and of the edited pair
Labels = dict[str, bool]  # by example: whether an edit mended it
ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the runs that are missing, probe all, write the file, and return the exit code."""
    options = _parser().parse_args(arguments)
    tasks = [folder for folder in sorted(options.tasks.iterdir()) if (folder / "task.yaml").is_file()]
    try:
        for schedule in () if options.only_probe else options.orders:
            for task in tasks:
                _run(task, schedule, options)
        probes = [probe for task in tasks for probe in _probe_task(task, options)]
        write_atomically(options.into, "".join(f"{probe.model_dump_json()}\n" for probe in probes))
    except NesyLoraError as error:
        print(f"probes: {error}", file=sys.stderr)
        return error.exit_code
    print(f"Written: {len(probes)} probed rows to {options.into}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.probes", description=__doc__)
    parser.add_argument("--tasks", type=Path, default=ROOT / "tasks" / "practice", help="a folder of task folders")
    parser.add_argument("--runs", type=Path, default=Path("runs", "probes"), help="where the runs are kept")
    parser.add_argument(
        "--into", type=Path, default=ROOT / "tools" / "diagnosis" / "probes.jsonl", help="the file to write"
    )
    parser.add_argument(
        "--orders", nargs="+", default=SCHEDULES, help="p: edit, o: LoRA on original rows, r: on refined"
    )
    parser.add_argument("--rows", type=int, default=32, help="most failing rows of a pair to probe")
    parser.add_argument("--only-probe", action="store_true", help="start no run: probe the runs there are")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _folder(task: Path, schedule: str, options: argparse.Namespace) -> Path:
    return Path(options.runs, f"{task.name}-{schedule}-{options.seed}")


def _pool(task: Path, options: argparse.Namespace) -> str:
    """The folder of answers and adapters that all runs of a task share."""
    return str(Path(options.runs, "pool", f"{task.name}-{options.seed}"))


def _run(task: Path, schedule: str, options: argparse.Namespace) -> None:
    """One run to its end; nothing if it has ended before."""
    began, path = time.monotonic(), _folder(task, schedule, options)
    overrides = [
        f"policy=steps {schedule}", f"seed={options.seed}", f"budget.rounds={len(schedule) + 1}", "data.limit.test=1",
    ]  # fmt: skip
    run = RunFolder.open(path) if path.exists() else new_run(task, overrides, runs=options.runs, name=path.name)
    with open_session(run, pool=_pool(task, options)) as session:
        session.go()
    gains = ", ".join(f"{row.verdict.before:.2f} → {row.verdict.after:.2f}" for row in run.rounds())
    print(f"{path.name}: {gains} ({time.monotonic() - began:.0f} s)", flush=True)


def _probe_task(task: Path, options: argparse.Namespace) -> Iterator[Probe]:
    """The failing rows of every pair that was edited, each pair once."""
    paths = [path for schedule in options.orders if (path := _folder(task, schedule, options)).exists()]
    labels: dict[Candidate, Labels] = {}
    services_of: dict[Candidate, RunServices] = {}
    for path in paths:
        services = RunServices(Context(run=str(path), pool=_pool(task, options)))
        rounds = services.folder.rounds()
        for row, pair in zip(rounds, pairs_before(rounds, services), strict=True):
            if mended := repaired_rows(row, pair, services):
                labels.setdefault(pair, {}).update(mended)
                services_of.setdefault(pair, services)
    for pair, mended in labels.items():
        yield from _probe_pair(pair, mended, services_of[pair], options.rows)


def _probe_pair(pair: Candidate, mended: Labels, services: RunServices, most: int) -> Iterator[Probe]:
    config, scores = services.spec.config, services.evaluate(pair, "validation").scores
    scored = zip(services.spec.validation, scores, strict=True)
    failing = [(row, score) for row, score in scored if score.reward < 1 and row.name in mended]
    failing = random.Random(config.seed).sample(failing, min(most, len(failing)))
    prompt, began = services.folder.prompt(pair.prompt), time.monotonic()
    all_features = services.classifier.features(failing, prompt, pair.adapter, config.seed, {})
    print(f"{config.name}, pair {pair.id}: {len(failing)} rows probed ({time.monotonic() - began:.0f} s)", flush=True)
    for (row, score), features in zip(failing, all_features, strict=True):
        if is_complete(features):
            yield Probe(
                task=config.name, model=config.model, pair=pair.id, example=row.name,
                features={name: round(value, 4) for name, value in features.items()},
                rules=need_by_rules(score, *gaps(features)), words=mended[row.name],
            )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
