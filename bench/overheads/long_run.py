"""A run of many rounds on the real graph, ledger, checkpoints, memory and report, with a model that takes no time."""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest.mock import patch

import yaml

from agent.config.lora import Lora
from agent.protocols import Asked, Briefing
from agent.records.actions import Decision, EditPrompt, Stop, TrainLora
from agent.records.base import Record
from agent.records.evaluation import Fitting
from agent.records.events import BaselineScored, Event, RoundJudged
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from agent.records.training import Step, Training, TrainingJob, write_training
from graphs.context import Silent, new_run
from graphs.session import open_session
from memory.run.folder import RunFolder

P = ParamSpec("P")
T = TypeVar("T")
ROWS = 32  # of each split, as in the demo
STEPS = 60  # optimizer steps of a training, as in the demo
TRAINED = 1000  # forward tokens that a training claims
PARTS = ("checkpoint", "ledger", "report", "memory")


class RoundCost(Record):
    """Milliseconds of a round, by part (`graph` is the rest), and bytes of the checkpoints after it."""

    number: int
    parts: dict[str, float]
    checkpoint_bytes: int


def long_run(root: Path, rounds: int) -> tuple[RunFolder, list[RoundCost]]:
    """A run of so many rounds in `root`, every second one a training, and the cost of each round."""
    folder = new_run(make_task(root, rounds), runs=root / "runs")
    clock = Stopwatch(folder)
    with open_session(folder, listener=clock, report=None) as session:
        from langgraph.checkpoint.sqlite import SqliteSaver

        from ui.report.write import write_report

        services = session.services
        folder.save_fitting(Fitting())  # there is no tokenizer
        model = FreeModel(rounds)
        vars(services).update(
            model=model, backbone=model, trainer=FreeTrainer(), policy=Alternating(rounds), _embed=_embed
        )
        services.report = clock.timed("report", write_report)
        vars(services.memory)["remember"] = clock.timed("memory", services.memory.remember)
        for kind in ("append", "rounds", "baseline", "outcome"):
            vars(services.folder)[kind] = clock.timed("ledger", getattr(services.folder, kind))
        with (
            patch.object(SqliteSaver, "put", clock.timed("checkpoint", SqliteSaver.put)),
            patch.object(SqliteSaver, "put_writes", clock.timed("checkpoint", SqliteSaver.put_writes)),
        ):
            session.go()
    return folder, clock.costs


class Stopwatch(Silent):
    """A listener that notes the cost of each round, and times the parts of it."""

    def __init__(self, folder: RunFolder) -> None:
        self.costs: list[RoundCost] = []
        self._folder = folder
        self._spent = defaultdict[str, float](float)
        self._began = time.perf_counter()

    def timed(self, part: str, work: Callable[P, T]) -> Callable[P, T]:
        """`work`, with the time it takes added to a part of the round."""

        def run(*args: P.args, **options: P.kwargs) -> T:
            began = time.perf_counter()
            try:
                return work(*args, **options)
            finally:
                self._spent[part] += time.perf_counter() - began

        return run

    def event(self, event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, RoundJudged):
            spent = {part: self._spent[part] * 1000 for part in PARTS}
            spent["graph"] = (now - self._began) * 1000 - sum(spent.values())
            files = self._folder.path.glob(f"{self._folder.checkpoints.name}*")
            size = sum(file.stat().st_size for file in files)
            self.costs.append(RoundCost(number=event.row.number, parts=spent, checkpoint_bytes=size))
        if isinstance(event, RoundJudged | BaselineScored):
            self._spent.clear()
            self._began = now


# --- stand-ins -------------------------------------------------------------------------------------


class FreeModel:
    """Answers at once, and better from round to round, so that some trials are kept."""

    def __init__(self, rounds: int) -> None:
        self._calls, self._most = 0, 6 * rounds

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: object = None,
    ) -> tuple[list[str], Spend]:
        self._calls += 1
        skill = min(0.9, self._calls / self._most)
        answers = [
            f"ANSWER: {example.answer}" if _chance(prompt.id, adapter, example.name) < skill else "I do not know that."
            for example in examples
        ]
        return answers, Spend()

    def generate_each(
        self, asked: Sequence[Asked], *, adapter: str | None, max_new_tokens: int, stop_early: object = None
    ) -> list[tuple[list[str], Spend]]:
        return [self.generate(*each, adapter=adapter, max_new_tokens=max_new_tokens) for each in asked]

    def nll(
        self, prompt: Prompt, examples: Sequence[Example], completions: object, *, adapter: str | None
    ) -> tuple[list[float | None], Spend]:
        return [6 * _chance(prompt.id, adapter, example.name) for example in examples], Spend()


class Alternating:
    """A policy that edits and trains in turn, for all rounds of the budget."""

    name = "in turn"

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def decide(self, briefing: Briefing) -> Decision:
        signal, diagnosis, rounds = briefing.signal, briefing.diagnosis, len(briefing.history)
        action = Stop() if rounds >= self._rounds else (EditPrompt(), TrainLora(fresh=True))[rounds % 2]
        numbers = {"reward": signal.reward, "noise": signal.noise, "rows lacking style": diagnosis.share("style")}
        return Decision(move=action, reason=f"The levers take turns: {action.action}.", numbers=numbers)


class FreeTrainer:
    """Leaves the record of a training, and no weights. Satisfies `agent.protocols.Trainer`."""

    def train(self, job: TrainingJob) -> Training:
        steps = tuple(
            Step(loss=3 / (step + 1), grad_norm=1 / (step + 1), epoch=1 + 10 * step // STEPS) for step in range(STEPS)
        )
        training = Training(
            model="none", parent=None, data=job.data, settings=Lora(), rows=job.action.rows, row_count=len(job.rows),
            left_out=0, epochs=10, learning_rate=job.action.learning_rate, rank=job.action.rank, seed=job.seed,
            steps=steps, tokens=TRAINED,
        )  # fmt: skip
        job.folder.mkdir(parents=True)
        write_training(training, job.folder)
        return training


def _embed(texts: Sequence[str]) -> list[list[float]]:
    return [[_chance(text, place) - 0.5 for place in range(384)] for text in texts]


def _chance(*what: object) -> float:
    """A number in [0, 1) that is always the same for the same things."""
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=6).digest()) / 2**48


def make_task(root: Path, rounds: int) -> Path:
    """The folder of a task that a run can start from, on a model folder without weights."""
    folder = root / "task"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    splits = ("train", "validation", "test")
    for split in splits:
        rows = [{"question": f"{split}: who keeps gate {n}?", "answer": f"Keeper-{n}"} for n in range(ROWS)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "name": "gates", "model": "./model", "data": {split: f"{split}.jsonl" for split in splits},
        "content": [{"kind": "contains"}], "style": [{"kind": "starts_with", "text": "ANSWER: "}],
        "target": 1.0, "gate": {"alpha": 0.4}, "budget": {"rounds": rounds}, "recall": {"prompts": 0},
    }  # fmt: skip
    (folder / "task.yaml").write_text(yaml.safe_dump(task))
    return folder
