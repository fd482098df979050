"""`python -m bench.studies.situations runs/decide runs/known`: situations with known outcomes, out of a benchmark.

For tasks/practice/situations.jsonl, which `nesylora check-llm` plans on. The runs of a benchmark's group (a task with a
seed) share answers, adapters and random numbers. So two runs that pulled the same levers so far stand before the same
pair, and what each of them pulls next shows what that lever brings there. A situation is what a run that observes
(rules or learned) saw; it is taken where an edit, LoRA on the rows as given and LoRA on refined rows were all pulled,
and one of them brought something. The oracle of `nesylora bench decide` pulls all three in every first round.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from agent.policy.base import stop_reason
from agent.protocols import Briefing
from agent.records.looks import FailingRow
from agent.records.rounds import Round
from agent.records.situations import Pull, Situation, pull_of
from bench.decisions.folder import load_group
from eval.tasks.task import load_config, load_task
from memory.run.folder import RunFolder
from memory.storage.disk import write_atomically

INTO = Path(__file__).parents[2] / "tasks" / "practice" / "situations.jsonl"
SAW = ("rules", "learned")  # without what an ablation does without
MOST_FAILURES = 3


class Place(NamedTuple):
    """What was pulled so far, and the pairs that stood after each pull."""

    pulls: tuple[Pull, ...] = ()
    pairs: tuple[str, ...] = ()


class Known(NamedTuple):
    """A round that was played, and its run."""

    run: RunFolder
    row: Round


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.situations", description=__doc__)
    parser.add_argument("benchmarks", type=Path, nargs="+", help="folders of `nesylora bench decide`")
    parser.add_argument("--into", type=Path, default=INTO, help="the file to write")
    options = parser.parse_args(arguments)
    groups = [file.parent for bench in options.benchmarks for file in sorted(bench.glob("*/group.json"))]
    # One seed after the other, so that whoever takes the first few has all tasks.
    groups.sort(key=lambda folder: load_group(folder).seed)
    situations = [situation for folder in groups for situation in _situations(folder)]
    write_atomically(options.into, "".join(f"{each.model_dump_json(exclude_unset=True)}\n" for each in situations))
    for each in situations:
        print(f"{each.name}: {each.outcomes}, best {', '.join(each.best)}")
    print(f"Written: {len(situations)} situations to {options.into}")
    return 0


def _situations(folder: Path) -> Iterator[Situation]:
    """Those of a group, the earliest rounds first."""
    group = load_group(folder)
    played: dict[Place, dict[Pull, Known]] = defaultdict(dict)
    seen: dict[Place, Known] = {}
    for run in (RunFolder.open(file.parent) for file in sorted(folder.glob("*/run.json"))):
        config = load_config(run.task_file)
        if "gate" in config.without:
            continue
        place = Place()
        for row in run.rounds():
            played[place].setdefault(pull_of(row.decision.move), Known(run, row))
            if config.policy in SAW and not config.without:
                seen.setdefault(place, Known(run, row))
            place = Place((*place.pulls, pull_of(row.decision.move)), (*place.pairs, row.best.id))
    levers = [pull for pull in get_args(Pull) if pull != "none"]
    for place, known in sorted(seen.items(), key=lambda item: item[0].pulls):
        if set(levers) <= played[place].keys():
            name = f"{group.folder} after {' '.join(place.pulls) or 'nothing'}"
            situation = _situation(name, known, {lever: played[place][lever] for lever in levers})
            if "none" not in situation.best:
                yield situation


def _situation(name: str, known: Known, played: dict[Pull, Known]) -> Situation:
    run, row = known
    config = load_config(run.task_file)
    history = tuple(_lean(earlier) for earlier in run.rounds()[: row.number - 1])
    assert not stop_reason(Briefing(row.signal, row.diagnosis, history), config), "a round was played"
    outcomes = {pull: round(each.row.reward, 4) for pull, each in played.items()}
    dump = config.model_dump(mode="json", exclude_defaults=True, exclude={"policy", "seed", "recall", "experience"})
    return Situation(
        name=name,
        task=dump,
        signal=row.signal,
        diagnosis=_lean(row).diagnosis,
        history=history,
        failures=_failures(*played["edit"]),
        outcomes={**outcomes, "none": round(row.signal.reward, 4)},
        costs={pull: each.row.trial.spend.forward_tokens for pull, each in played.items()},
    )


def _lean(row: Round) -> Round:
    """Without what no planner reads: proposals, features of the probes."""
    examples = tuple(each.model_copy(update={"features": {}}) for each in row.diagnosis.examples)
    return row.model_copy(
        update={
            "diagnosis": row.diagnosis.model_copy(update={"examples": examples}),
            "trial": row.trial.model_copy(update={"proposals": (), "raced": (), "critiques": ()}),
        }
    )


def _failures(run: RunFolder, row: Round) -> tuple[FailingRow, ...]:
    """Some failing train rows of the pair that stood, of those that this edit learned from."""
    first, rounds = run.baseline(), run.rounds()
    assert first is not None, "a finished run has a baseline"
    pair = rounds[row.number - 2].best if row.number > 1 else first.best
    questions = {example.name: example.question for example in load_task(Path(run.about.source)).train}
    scores = [score for score in run.load(pair, "train").scores.values() if score.reward < 1]
    return tuple(
        FailingRow(
            question=questions[score.example], output=score.output,
            faults=(*(("The content is wrong.",) if score.content < 1 else ()), *score.faults),
        )
        for score in scores[:MOST_FAILURES]
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
