"""Whole runs that are killed at every kind of point, again and again; and their budgets."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from agent.records.training import read_training
from bench.studies.night.comparison import differences
from graphs.context import new_run
from memory.experience import ExperienceFile
from memory.prompts import PromptMemory
from memory.run.folder import RunFolder
from tests.faults.zygote import UNDISTURBED, Play, Zygote
from tests.fixtures.learnable import LEARNABLE, TinyTask

SETTINGS = ["policy=p -> w -> p", "seed=1", "budget.rounds=2"]
COUNTED = ("train_tokens", "generated_tokens", "read_tokens", "llm_tokens", "usd")
EVERYWHERE = (  # beginnings of the kinds of points that must be among them
    *(f"before the beginning of {node}" for node in (
        "baseline", "observe", "plan", "approve", "edit_prompt", "train_lora", "judge", "remember", "finish")),
    "before the end of a node", "before a checkpoint", "after a checkpoint", "inside a transaction",
    "before a Chroma write", "after a Chroma write", "while training LoRA", "while answering",
    "before an adapter's marker", "before the renaming of adapters", "before the renaming of evaluations",
    "before the renaming of charge.json", "in a line of ledger.jsonl", "in a line of events.jsonl",
    "in a line of experience.jsonl", "in a line of prompts.jsonl",
)  # fmt: skip


def rows(run: RunFolder) -> list[Any]:
    """The ledger without what the clock and repeated work change."""
    found = [json.loads(line) for line in (run.path / "ledger.jsonl").read_text().splitlines()]
    for row in found:
        row.pop("spend")
        row.pop("pace", None)
        row.get("trial", {}).pop("spend", None)
        for lever in ("edit", "lora"):  # costs are estimated from what rounds have spent
            (row.get("signal", {}).get(lever, {}).get("outlook") or {}).pop("cost", None)
    return found


def more_kills(points: list[str], seed: int) -> list[Play]:
    """Kills at points of kinds that come often, drawn by the seed."""
    chance = random.Random(seed)
    often = [kind for kind in dict.fromkeys(points) if points.count(kind) > 20]
    return [Play(chance.choice(often), chance.randint(2, 9)) for _ in range(8)]


def is_killed(processes: Zygote, run: RunFolder, play: Play) -> bool:
    ended = processes.play(run.path, play)
    assert not ended.error, (play, ended.error)
    return ended.killed


def to_the_end(
    processes: Zygote, run: RunFolder, how: Play = UNDISTURBED, environment: dict[str, str] | None = None
) -> int:
    """Plays it until it has ended; how often it was killed."""
    kills = 0
    while run.outcome() is None and kills < 30:
        played = processes.play(run.path, how, environment)
        assert not played.error, played.error
        kills += played.killed
    return kills


def test_a_run_killed_at_every_kind_of_point_has_the_ledger_of_an_undisturbed_one(
    processes: Zygote, tiny_task: TinyTask, tmp_path: Path
) -> None:
    task = tiny_task(**LEARNABLE)
    whole = new_run(task, SETTINGS, tmp_path / "whole")
    played = processes.play(whole.path)
    outcome = whole.outcome()
    assert outcome is not None, played.error
    assert [row.verdict.kept for row in whole.rounds()] == [True, True]
    assert all(any(point.startswith(kind) for point in played.points) for kind in EVERYWHERE)
    left = kinds = list(dict.fromkeys(played.points))
    for number in range(9):
        run = new_run(task, SETTINGS, tmp_path / f"killed-{number}")
        plays = [Play(kind) for kind in left] if number else more_kills(played.points, seed=16)
        killed = {play.at for play in plays if run.outcome() is None and is_killed(processes, run, play)}
        left = [kind for kind in left if kind not in killed or not number]
        to_the_end(processes, run)
        assert list(differences(rows(run), rows(whole))) == [], "each round once, with the same numbers"
        ended_at = run.outcome()
        assert ended_at is not None
        assert all(getattr(ended_at.spend, name) >= getattr(outcome.spend, name) for name in COUNTED)
        remembered = len(run.remembered())
        with PromptMemory.open(run.path.parent / "memory", lambda texts: [[1.0] * 384 for _ in texts]) as memory:
            assert memory.count() == remembered == len(whole.remembered()) > 0
        lines = (run.path.parent / "experience.jsonl").read_bytes().splitlines()
        assert len(lines) == len(ExperienceFile.beside(run.path.parent).read()) == 2
        if not left:
            break
    assert not left and len(kinds) > 40, "killed at each"


@pytest.mark.parametrize(
    "at", [Play("while training LoRA", 3), Play("while answering", 2), Play("before a checkpoint", 9)]
)
def test_ctrl_c_ends_a_step_cleanly_and_the_run_goes_on(
    processes: Zygote, tiny_task: TinyTask, tmp_path: Path, at: Play
) -> None:
    run = new_run(tiny_task(**LEARNABLE), [*SETTINGS, "lora.epochs=3"], tmp_path / "runs")
    played = processes.play(run.path, at._replace(by=signal.SIGINT))
    assert played.error.startswith("KeyboardInterrupt") and not played.killed
    with run.locked():
        assert not list(run.path.glob("adapters/*")) or list(run.path.glob("adapters/*/complete"))
    to_the_end(processes, run)
    assert [row.number for row in run.rounds()] == [1, 2]


# --- budgets ----------------------------------------------------------------------------------------

KILLS = [Play("while training LoRA", times) for times in (2, 5, 3, 7, 4)]


def test_minutes_are_held_over_kills_whatever_the_clock_shows(
    processes: Zygote, tiny_task: TinyTask, tmp_path: Path
) -> None:
    """A second at each point of each process; between them the clock jumps, by days, forth and back."""
    never = [{"kind": "exact", "extract": "never"}]  # else it ends at its target
    task = tiny_task(**LEARNABLE | {"budget": {"rounds": 9, "minutes": 4}, "content": never})
    run = new_run(task, ["policy=lora-only", "lora.enough=0"], tmp_path / "runs")
    clocks = [1_800_000_000 + days * 86_400 for days in (0, 3, -2, 40, -400, 1)]
    for play, clock in zip([*KILLS, UNDISTURBED], clocks, strict=True):
        ended = processes.play(run.path, play._replace(clock=clock))
        assert not ended.error, ended.error
    outcome = run.outcome()
    assert outcome is not None and "4 minutes" in outcome.stopped
    *earlier, last = run.rounds()
    assert all(row.spend.seconds < 240 for row in earlier), "no round begins after them"
    assert last.trial.candidate and last.trial.candidate.adapter
    trained = read_training(run.adapter_folder(last.trial.candidate.adapter))
    assert trained.stopped == "the time budget was used up"
    assert outcome.spend.seconds < 240 + 100, "the last round is judged, and the test rows are opened"
