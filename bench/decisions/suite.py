"""A task under several policies and seeds, at equal budget: a row a run, on disk, resumable."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.base import Record
from agent.records.rounds import Spend, SplitResult

ORACLE = "oracle"  # no policy: whoever runs the suite finds the best levers with the benefit of hindsight


class Variant(Record):
    """What takes part: a policy with settings of its own, under the name that tables give it."""

    name: str
    settings: tuple[str, ...]

    @property
    def folder(self) -> str:
        """A name for its run folders: another one where the settings are others."""
        return f"{re.sub('[^A-Za-z0-9]+', '-', self.name).strip('-') or 'variant'}-{self.id[:6]}"


class Reached(Record):
    """What a run had spent when its best validation reward first was at the target."""

    passes: int
    seconds: float


class Result(Record):
    """One run of one variant: both pairs on the sealed test rows, and what it took.

    `spend` is what it took before the test rows were opened. Rewards are those of the best pair, by the name of the
    test row. `levers` has a letter and a mark for each round: p✓ an edit that was kept, w✗ a training taken back.
    """

    task: str
    policy: str
    settings: tuple[str, ...] = ()
    seed: int
    run: str
    rounds: int
    kept_edits: int
    kept_lora: int
    spend: Spend
    baseline: SplitResult
    best: SplitResult
    rewards: dict[str, float]
    target: float
    reached: Reached | None
    levers: str
    stopped: str


def named(policy: str) -> Variant:
    """The variant of a bare policy, which may do without faculties: `rules without gate, memory`."""
    bare, without, faculties = policy.partition(" without ")
    left_out = ", ".join(faculties.replace(",", " ").split())
    return Variant(name=policy, settings=(f"policy={bare}", *([f"without=[{left_out}]"] if without else [])))


def described(text: str) -> Variant:
    """The variant that `NAME: KEY=VALUE …` describes, quoted as in a shell. Raises BadInput."""
    name, colon, settings = text.partition(":")
    try:
        words = shlex.split(settings)
    except ValueError:
        words = []
    if not (colon and name.strip() and words and all("=" in word.strip("=") for word in words)):
        raise BadInput(f"--variant {text!r}: write it as 'NAME: KEY=VALUE …', such as 'slow: lora.learning_rate=1e-4'")
    return Variant(name=name.strip(), settings=tuple(words))


def run_all(
    variants: Sequence[Variant], seeds: Sequence[int], play: Callable[[Variant, int], Result], file: Path
) -> Iterator[Result]:
    """Every variant with every seed, in turn; what stands in `file` already is not run again."""
    done = {(result.policy, result.settings, result.seed): result for result in read(file)}
    for seed in seeds:
        for variant in variants:
            result = done.get((variant.name, variant.settings, seed))
            if result is None:
                result = play(variant, seed)
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(f"{_end_of_torn_line(file)}{result.model_dump_json()}\n")
            yield result


def read(file: Path) -> list[Result]:
    """The results so far; a line cut off by a kill, or written by an older version, is passed over, and made anew."""
    lines = file.read_bytes().split(b"\n") if file.exists() else []
    return [result for line in lines if line and (result := _result(line)) is not None]


def _end_of_torn_line(file: Path) -> str:
    return "" if file.read_bytes()[-1:] in (b"", b"\n") else "\n"


def _result(line: bytes) -> Result | None:
    try:
        return Result.model_validate_json(line)
    except ValidationError:
        return None


def table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Header and one row a policy: means over seeds; edits and LoRA are the rounds that were kept."""
    head = ("policy", "test reward", "content", "style", "rounds", "edits", "LoRA", "min")
    return [head, *(_row(policy, [r for r in results if r.policy == policy]) for policy in order(results))]


def order(results: Sequence[Result]) -> list[str]:
    """The policies, in the order in which they came."""
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
        f"{mean(lambda r: r.spend.seconds) / 60:.1f}",
    )
