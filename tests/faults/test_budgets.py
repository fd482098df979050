"""Budgets over kills at random. With NESYLORA_KILLS=20 each limit is tried over so many kills; `-s` prints its row.

Runs of the tiny model are killed at points that are drawn by a seed, in every process anew. Where a run ends before it
was killed so often, the next one begins.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.records.rounds import Outcome
from agent.records.training import read_training
from graphs.context import new_run
from memory.run.folder import RunFolder
from tests.faults.zygote import Play, Zygote
from tests.fixtures.learnable import LEARNABLE, TinyTask
from tests.llm.scripted_llm import scripted_llm
from tests.llm.server import LlmServer, serving

KILLS = int(os.environ.get("NESYLORA_KILLS", "2"))
IN, OUT = 0.4, 1.6  # USD per million tokens
KEY = {"MAYOR_KEY": "sk-marked-5f0c1d7e9b"}
NEVER = [{"kind": "exact", "extract": "never"}]  # else a run ends at its target
WEIGHTS = ["policy=lora-only", "lora.enough=0"]
CLOCK = 1_800_000_000  # of processes whose clock shows a second more at each point
ASKS = {"planner": "llm", "prompt": {"system": "Answer."}}


class Limited(NamedTuple):
    """A limit, and the runs that are to keep to it."""

    name: str
    most: float
    task: dict[str, Any]
    settings: list[str]
    clock: int = 0

    @property
    def asks(self) -> bool:
        """Whether it is spent on an LLM."""
        return "planner" in self.task


LIMITS = (
    Limited("rounds", 3, LEARNABLE | {"content": NEVER}, ["policy=w -> p -> w", "budget.rounds=3", "lora.epochs=2"]),
    Limited("train_tokens", 8000, LEARNABLE | {"content": NEVER},
            [*WEIGHTS, "budget.rounds=9", "budget.train_tokens=8000"]),
    Limited("minutes", 4, LEARNABLE | {"content": NEVER}, [*WEIGHTS, "budget.rounds=9", "budget.minutes=4"], CLOCK),
    Limited("llm_tokens", 30_000, ASKS, ["budget.rounds=9", "budget.llm_tokens=30000"]),
    Limited("usd", 0.018, ASKS, ["budget.rounds=9", "budget.usd=0.018"]),
)  # fmt: skip


class Held(NamedTuple):
    """What became of a run under a limit.

    Attributes:
        spent: as the run says in the end, in the limit's unit.
        step: the largest that one step takes: beyond the limit by no more than that; 0: not at all.
        least: that was truly used, as somebody else has counted it; the run may not say less.
        reached: whether the limit was in the way of anything.
    """

    kills: int
    spent: float
    step: float
    least: float
    reached: bool

    def keeps_to(self, most: float) -> bool:
        """Whether the limit was held within one step, and nothing was forgotten."""
        return self.least - 1e-9 <= self.spent <= most + self.step + 1e-9


def play(limited: Limited, kills: int, seed: int, processes: Zygote, task: TinyTask, root: Path) -> Iterator[Held]:
    """Runs under a limit, until there were so many kills."""
    chance, number = random.Random(f"{limited.name} {seed}"), 0
    while kills > 0:
        number += 1
        with _llm(limited, task) as (folder, server):
            run = new_run(folder, limited.settings, root / f"{limited.name}-{seed}-{number}")
            killed = _killed(run, limited, kills, chance, processes)
            outcome = run.outcome()
            assert outcome is not None
            yield _held(limited, run, outcome, killed, server)
        kills -= max(killed, 1)


@contextmanager
def _llm(limited: Limited, task: TinyTask) -> Iterator[tuple[Path, LlmServer | None]]:
    if not limited.asks:
        yield task(**limited.task), None
        return
    with serving(scripted_llm) as server:
        llm = {"model": "mind-1", "base_url": server.url, "key_variable": "MAYOR_KEY", "patience": 0,
               "price": {"input": IN, "output": OUT}}  # fmt: skip
        yield task(**limited.task, llm=llm), server


def _killed(run: RunFolder, limited: Limited, most: int, chance: random.Random, processes: Zygote) -> int:
    """Plays the run to its end, killed again and again at kinds of points that it has come by. Returns how often."""
    kills, kinds, clock = 0, ["while answering"], limited.clock
    while run.outcome() is None:
        at = "in a line of calls.jsonl" if limited.asks and chance.random() < 0.5 else chance.choice(kinds)
        how = Play(at, chance.randint(1, 4), clock) if kills < most else Play(clock=clock)
        played = processes.play(run.path, how, KEY if limited.asks else {})
        assert not played.error, played.error
        kills += played.killed
        kinds = list(dict.fromkeys([*kinds, *played.points]))
        clock += chance.randint(-9, 9) * 86_400 * bool(clock)  # it jumps by days while no process works
    return kills


def _held(limited: Limited, run: RunFolder, outcome: Outcome, kills: int, server: LlmServer | None) -> Held:
    spend, rounds = outcome.spend, run.rounds()
    match limited.name:
        case "rounds":
            assert [row.number for row in rounds] == list(range(1, len(rounds) + 1))
            return Held(kills, len(rounds), 0, len(rounds), len(rounds) == limited.most)
        case "train_tokens":
            trainings = [read_training(marker.parent) for marker in run.path.glob("adapters/*/complete")]
            step = max(training.tokens / len(training.steps) for training in trainings if training.steps)
            least = max(training.tokens for training in trainings)
            return Held(kills, spend.train_tokens, 2 * step, least, spend.train_tokens >= limited.most)
        case "minutes":
            begun = [row.spend.seconds / 60 for row in rounds[:-1]]
            assert all(minutes < limited.most for minutes in begun), "no round begins after them"
            last = spend.seconds / 60 - max([0.0, *begun])
            return Held(kills, spend.seconds / 60, last, 0.0, spend.seconds / 60 >= limited.most)
        case "llm_tokens":
            assert server is not None and server.requests
            return Held(kills, spend.llm_tokens, 0, sum(server.reported), _refused(run, limited))
        case _:
            assert server is not None and server.requests
            return Held(kills, spend.usd, 0, server.billed(IN, OUT), _refused(run, limited))


def _refused(run: RunFolder, limited: Limited) -> bool:
    """Whether a call was not made since it might have passed the limit."""
    return f"are left of budget.{limited.name} {limited.most:,g}" in (run.path / "ledger.jsonl").read_text()


@pytest.mark.parametrize("limited", LIMITS, ids=[limited.name for limited in LIMITS])
def test_a_limit_is_held_within_a_step_over_kills_at_random(
    limited: Limited, processes: Zygote, tiny_task: TinyTask, tmp_path: Path
) -> None:
    made = list(play(limited, KILLS, 16, processes, tiny_task, tmp_path))
    worst = max(made, key=lambda held: held.spent)
    print(
        f"\n| `{limited.name}` | {sum(held.kills for held in made)}, in {len(made)} | {limited.most:,g} | "
        f"{worst.spent:,.6g} | {max(0.0, worst.spent - limited.most):,.4g} | {worst.step:,.4g} | {worst.least:,.6g} | "
        f"{sum(held.reached for held in made)} |"
    )
    assert all(held.keeps_to(limited.most) for held in made), made
    assert sum(held.kills for held in made) >= KILLS or len(made) > 1
    assert any(held.reached for held in made), "a limit that is in nobody's way is held by anyone"
