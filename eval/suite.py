"""The same task under several policies and seeds, at equal budget: a row a run, on disk, resumable."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from agent.records import Record
from agent.rounds import SplitResult


class Result(Record):
    """One run of one policy: both pairs on the sealed test rows, and what it took."""

    task: str
    policy: str
    seed: int
    run: str
    rounds: int
    kept_edits: int
    kept_lora: int
    seconds: float
    train_tokens: int
    baseline: SplitResult
    best: SplitResult
    stopped: str


def run_all(
    policies: Sequence[str], seeds: Sequence[int], adapt: Callable[[str, int], Result], file: Path
) -> Iterator[Result]:
    """Every policy with every seed, in turn; what stands in `file` already is not run again."""
    done = {(result.policy, result.seed): result for result in read(file)}
    for seed in seeds:
        for policy in policies:
            result = done.get((policy, seed))
            if result is None:
                result = adapt(policy, seed)
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(f"{_end_of_torn_line(file)}{result.model_dump_json()}\n")
            yield result


def read(file: Path) -> list[Result]:
    """The results so far; a line cut off by a kill is passed over, and its run done again."""
    if not file.exists():
        return []
    return [Result.model_validate_json(line) for line in file.read_text(encoding="utf-8").split("\n") if _whole(line)]


def _end_of_torn_line(file: Path) -> str:
    return "" if file.read_bytes()[-1:] in (b"", b"\n") else "\n"


def _whole(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Header and one row a policy: means over seeds; edits and LoRA are the rounds that were kept."""
    head = ("policy", "test reward", "content", "style", "rounds", "edits", "LoRA", "min")
    return [head, *(_row(policy, [r for r in results if r.policy == policy]) for policy in _order(results))]


def _order(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.policy for result in results))


def _row(policy: str, results: Sequence[Result]) -> tuple[str, ...]:
    def mean(get: Callable[[Result], float]) -> float:
        return fmean(get(result) for result in results)

    first = results[0].best
    interval = f" [{first.low:.2f}, {first.high:.2f}]" if len(results) == 1 else ""
    return (
        policy,
        f"{mean(lambda r: r.best.reward):.2f}{interval}",
        f"{mean(lambda r: r.best.content):.2f}",
        f"{mean(lambda r: r.best.style):.2f}",
        f"{mean(lambda r: r.rounds):.1f}",
        f"{mean(lambda r: r.kept_edits):.1f}",
        f"{mean(lambda r: r.kept_lora):.1f}",
        f"{mean(lambda r: r.seconds) / 60:.1f}",
    )
