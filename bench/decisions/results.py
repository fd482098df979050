"""Who takes part in a benchmark, and what came of each run: a row for each run, on disk and resumable."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.base import Record
from agent.records.rounds import Spend, SplitResult
from memory.storage.disk import append_line, whole_lines

ORACLE = "oracle"  # no policy: a search for the best actions with the benefit of hindsight


class Variant(Record):
    """What takes part: a policy with settings of its own, under the name that tables give it."""

    name: str
    settings: tuple[str, ...]

    @property
    def folder(self) -> str:
        """A name for its run folders: other settings give another name."""
        return f"{re.sub('[^A-Za-z0-9]+', '-', self.name).strip('-') or 'variant'}-{self.id[:6]}"


class Reached(Record):
    """What a run had spent when its best validation reward was first at the target: forward tokens, and seconds."""

    passes: int  # forward tokens; the name is fixed by the results.jsonl of earlier studies
    seconds: float


class Result(Record):
    """One run of one variant: both pairs on the sealed test rows, and what it took.

    `spend` is what it took before the test rows were opened. `rewards` are those of the best pair, by the name of the
    test row. `commonest` is what always giving the commonest train answer earns on them, `most_alike` the most that one
    answer to all of them could. `drift` is what the best pair's weights lost on general text, in nats per token: 0 if
    bare, None in rows of older versions, or where it could not be measured. `levers` has a letter and a mark for each
    round: p✓ a kept edit, w✗ a training taken back.
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
    commonest: float | None = None
    most_alike: float | None = None
    drift: float | None = None


def named(policy: str) -> Variant:
    """The variant of a bare policy, which may have ablations: `rules without gate, memory`."""
    bare, without, ablations = policy.partition(" without ")
    left_out = ", ".join(ablations.replace(",", " ").split())
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
    variants: Sequence[Variant], seeds: Sequence[int], run: Callable[[Variant, int], Result], file: Path
) -> Iterator[Result]:
    """Every variant with every seed, in turn. A row that is in `file` already is not run again.

    Args:
        run: makes the row of a variant and a seed.
        file: results.jsonl; each new row is appended to it before it is yielded.
    """
    done = {(result.policy, result.settings, result.seed): result for result in read(file)}
    for seed in seeds:
        for variant in variants:
            result = done.get((variant.name, variant.settings, seed))
            if result is None:
                result = run(variant, seed)
                append_line(file, result.model_dump_json(), sync=False)
            yield result


def read(file: Path) -> list[Result]:
    """The rows so far. A line cut off by a kill, or written by an older version, is skipped, and run again."""
    found = []
    for line in whole_lines(file):
        try:
            found.append(Result.model_validate_json(line))
        except ValidationError:
            continue
    return found
