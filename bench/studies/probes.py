"""`python -m bench.studies.probes`: what edits do to rows of the practice tasks, for tools/diagnosis/probes.jsonl.

Each task is run by short fixed orders, which make the same moves from the same pairs (all answers and adapters are had
in common). Then the failing rows of each pair that was edited are probed, and labelled by what the edit did to them.
The same command goes on where it was stopped.
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
from graphs.rows.labels import began_with, outcomes
from graphs.services.run import RunServices
from graphs.session import open_session
from memory.run.folder import RunFolder
from memory.storage.disk import write_atomically
from tools.diagnosis.classify import gaps, need_by_rules
from tools.diagnosis.features import is_complete

ORDERS = ("pp",)  # labels of the seed pair, and of the edited one
Labels = dict[str, bool]  # by example: whether an edit mended it
ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has not been run, probe all, write the file, and return the exit code."""
    given = _parser().parse_args(arguments)
    tasks = [folder for folder in sorted(given.tasks.iterdir()) if (folder / "task.yaml").is_file()]
    try:
        for order in () if given.only_probe else given.orders:
            for task in tasks:
                _play(task, order, given)
        probes = [probe for task in tasks for probe in _probed(task, given)]
        write_atomically(given.into, "".join(f"{probe.model_dump_json()}\n" for probe in probes))
    except NesyLoraError as error:
        print(f"probes: {error}", file=sys.stderr)
        return error.exit_code
    print(f"Written: {len(probes)} probed rows to {given.into}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.probes", description=__doc__)
    parser.add_argument("--tasks", type=Path, default=ROOT / "tasks" / "practice", help="a folder of task folders")
    parser.add_argument("--runs", type=Path, default=Path("runs", "probes"), help="where the runs are kept")
    parser.add_argument("--into", type=Path, default=ROOT / "tools" / "probes.jsonl", help="the file to write")
    parser.add_argument("--orders", nargs="+", default=ORDERS, help="p: edit, o: LoRA on given rows, r: on refined")
    parser.add_argument("--rows", type=int, default=32, help="most failing rows of a pair that are probed")
    parser.add_argument("--only-probe", action="store_true", help="begin no run: probe what has been run")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _folder(task: Path, order: str, given: argparse.Namespace) -> Path:
    return Path(given.runs, f"{task.name}-{order}-{given.seed}")


def _pool(task: Path, given: argparse.Namespace) -> str:
    return str(Path(given.runs, "pool", f"{task.name}-{given.seed}"))


def _play(task: Path, order: str, given: argparse.Namespace) -> None:
    """One run to its end; nothing where it has ended."""
    began, path = time.monotonic(), _folder(task, order, given)
    changes = [f"policy=steps {order}", f"seed={given.seed}", f"budget.rounds={len(order) + 1}", "data.limit.test=1"]
    run = RunFolder.open(path) if path.exists() else new_run(task, changes, runs=given.runs, name=path.name)
    with open_session(run, pool=_pool(task, given)) as session:
        session.go()
    gains = ", ".join(f"{row.verdict.before:.2f} → {row.verdict.after:.2f}" for row in run.rounds())
    print(f"{path.name}: {gains} ({time.monotonic() - began:.0f} s)", flush=True)


def _probed(task: Path, given: argparse.Namespace) -> Iterator[Probe]:
    """The failing rows of every pair that was edited, each once."""
    paths = [path for order in given.orders if (path := _folder(task, order, given)).exists()]
    contexts = [RunServices(Context(run=str(path), pool=_pool(task, given))) for path in paths]
    labels: dict[Candidate, Labels] = {}
    holder: dict[Candidate, RunServices] = {}
    for context in contexts:
        rounds = context.folder.rounds()
        for row, pair in zip(rounds, began_with(rounds, context), strict=True):
            if told := outcomes(row, pair, context):
                labels.setdefault(pair, {}).update(told)
                holder.setdefault(pair, context)
    for pair, told in labels.items():
        yield from _of_pair(pair, told, holder[pair], given.rows)


def _of_pair(pair: Candidate, told: Labels, context: RunServices, most: int) -> Iterator[Probe]:
    config, scores = context.spec.config, context.evaluate(pair, "validation").scores
    paired = zip(context.spec.validation, scores, strict=True)
    failing = [(row, score) for row, score in paired if score.reward < 1 and row.name in told]
    failing = random.Random(config.seed).sample(failing, min(most, len(failing)))
    prompt, began = context.folder.prompt(pair.prompt), time.monotonic()
    seen = context.classifier.features(failing, prompt, pair.adapter, config.seed, {}, thorough=True)
    print(f"{config.name}, pair {pair.id}: {len(failing)} rows probed ({time.monotonic() - began:.0f} s)", flush=True)
    for (row, score), features in zip(failing, seen, strict=True):
        if is_complete(features):
            yield Probe(
                task=config.name, model=config.model, pair=pair.id, example=row.name,
                features={name: round(value, 4) for name, value in features.items()},
                rules=need_by_rules(score, *gaps(features)), words=told[row.name],
            )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
