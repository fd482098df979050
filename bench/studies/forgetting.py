"""`python -m bench.studies.forgetting`: what weights forget, and what helps, beside the default of `lora.replay`.

Each row of the table is one LoRA training on the remade train rows of a task, from the bare base. The same command
continues where it was stopped.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from agent.config.lora import Lora
from agent.example_tasks import shipped
from agent.records.actions import TrainLora
from agent.records.base import Record, digest
from agent.records.drift import Drift
from agent.records.examples import Candidate, Demo, Prompt
from agent.records.rounds import Spend
from agent.records.training import TrainingJob
from eval.runner import Runner
from eval.tasks.task import Task, load_config, load_task
from memory.remake import remake, select
from memory.run.folder import RunFolder
from memory.storage.disk import append_line, whole_lines, write_atomically
from tools.diagnosis.drift import drift, general_baseline
from tools.model.backbone import Backbone
from tools.model.loading import load_model
from tools.training.lora import LoraTrainer

ROOT = Path(__file__).parents[2]
ATTENTION_AND_MLP = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Remedy(NamedTuple):
    """A row of the table: settings of `lora:`, and how many demonstrations training and answers stand under."""

    name: str
    settings: dict[str, Any]
    demos: int = 0


HEADER = """# What weights forget, and what helps

`python -m bench.studies.forgetting --into docs/benchmarks/forgetting.md`

Each row: one LoRA training on the remade train rows of the valley (SmolLM2-135M, from the bare base); means over seeds.
*Drift*: nats a token lost on the probe (`tools/diagnosis/general.jsonl`). Seconds: one thread, on a busy machine.
Remedies that are not listed were not measured.
"""
OFF: dict[str, Any] = {"replay": 0}
UPPER_HALF = {"targets": ATTENTION_AND_MLP, "options": {"layers_to_transform": list(range(15, 30))}}
REMEDIES = (
    Remedy("none", OFF),
    *(Remedy(f"replay {share:g}", {"replay": share}) for share in (0.125, 0.25, 0.5, 1)),
    *(Remedy(f"replay 0.25, KL × {weight:g}", {"replay": 0.25, "kl": weight}) for weight in (0.3, 3, 10)),
    Remedy("rank 4", {**OFF, "rank": 4}),
    Remedy("rate 3e-4", {**OFF, "learning_rate": 3e-4}),
    Remedy("upper half of the layers", {**OFF, **UPPER_HALF}),
    Remedy("two demonstrations", OFF, demos=2),
    Remedy("two demonstrations, replay 0.25", {"replay": 0.25}, demos=2),
    Remedy("rank 4, replay 0.25", {"replay": 0.25, "rank": 4}),
)


class Cell(Record):
    """One training: reward on validation rows, drift, and what it took."""

    remedy: str
    seed: int
    reward: float
    content: float
    style: float
    drift: Drift
    epochs: int
    spend: Spend
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the trainings that are missing, print the table, write it where asked, and return the exit code."""
    options = _parser().parse_args(arguments)
    results = options.runs / load_config(options.task).name / "results.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    done = [Cell.model_validate_json(line) for line in whole_lines(results)]
    chosen = [remedy for remedy in REMEDIES if not options.only or remedy.name in options.only]
    missing = [
        (remedy, seed)
        for seed in options.seeds
        for remedy in chosen
        if not any((cell.remedy, cell.seed) == (remedy.name, seed) for cell in done)
    ]
    if missing:
        bench = Bench(options.task, options.runs)
        for remedy, seed in missing:
            done.append(cell := bench.cell(remedy, seed))
            append_line(results, cell.model_dump_json(), sync=True)
            print(_line(cell.remedy, [cell]), flush=True)
    text = table(done)
    print(text)
    if options.into:
        write_atomically(options.into, f"{HEADER}\n{text}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.forgetting", description=__doc__)
    parser.add_argument("--task", type=Path, default=shipped("valley"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="some of the remedies, by name")
    parser.add_argument("--runs", type=Path, default=Path("runs", "forgetting"), help="where results are kept, by task")
    parser.add_argument("--into", type=Path, help="a file for the table")
    return parser


class Bench:
    """A task and its model, on which remedies are tried.

    Args:
        runs: where adapters and evaluations are kept.
    """

    def __init__(self, task: Path, runs: Path) -> None:
        self._task: Task = load_task(task)
        self._folder = RunFolder(runs / self._task.config.name)
        self._spent = Spend()
        config = self._task.config
        base, tokenizer = load_model(
            config.model, device=config.device, dtype=config.dtype, chat_template_kwargs={}, progress=lambda *_: None
        )
        self._model = Backbone(
            base, tokenizer, name=config.model, locate=self._folder.adapter_folder, charge=self._charge
        )
        self._baseline = general_baseline(self._model)
        print(f"the probe of the bare base: {self._spent}", flush=True)

    def cell(self, remedy: Remedy, seed: int) -> Cell:
        """Train, evaluate on the validation rows, and measure drift."""
        config = self._task.config
        lora = Lora.model_validate(config.lora.model_dump() | remedy.settings)
        prompt = self._prompt(remedy.demos)
        remade = remake(self._task.train, prompt, self._task.scorers)
        rows = [(prompt, row.example) for row in select(self._task.train, remade, "refined")]
        action = TrainLora(
            rows="refined", epochs=lora.epochs, learning_rate=lora.learning_rate, rank=lora.rank, enough=lora.enough,
            replay=lora.replay,
        )  # fmt: skip
        adapter = digest([config.name, remedy, seed])
        self._spent, began = Spend(), time.monotonic()
        trainer = LoraTrainer(self._model, lora, lambda *_: None)
        folder = self._folder.adapter_folder(adapter)
        job = TrainingJob(adapter=adapter, rows=tuple(rows), action=action, folder=folder, parent=None, seed=seed)
        training = trainer.train(job)
        spend, seconds = self._spent, time.monotonic() - began
        pair = Candidate(prompt=self._folder.save_prompt(prompt), adapter=adapter)
        found = Runner(self._task, self._model, self._folder.prompt, self._folder)(pair, "validation")
        assert self._baseline is not None, "the probe fits into every model that is measured here"
        return Cell(
            remedy=remedy.name, seed=seed, reward=found.reward, content=found.content, style=found.style,
            drift=drift(self._model, adapter, self._baseline), epochs=len(training.epoch_losses), spend=spend,
            seconds=seconds,
        )  # fmt: skip

    def _charge(self, spend: Spend) -> None:
        self._spent += spend

    def _prompt(self, demos: int) -> Prompt:
        """The seed prompt, with the first train rows in the wanted form as demonstrations."""
        shown = [
            Demo(question=row.question, answer=self._task.scorers.show(row.answer)) for row in self._task.train[:demos]
        ]
        return self._task.config.prompt.prompt().model_copy(update={"demos": tuple(shown)})


def table(cells: Sequence[Cell]) -> str:
    """Markdown: a row for each remedy, means over its seeds."""
    order = [remedy.name for remedy in REMEDIES]
    ranked = sorted(cells, key=lambda cell: order.index(cell.remedy) if cell.remedy in order else len(order))
    lines = [
        "| remedy | seeds | reward on validation | drift, nats a token | worst kind | epochs | forward tokens | s |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(name, list(same)) for name, same in groupby(ranked, lambda cell: cell.remedy)),
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, cells: Sequence[Cell]) -> str:
    kinds = cells[0].drift.kinds
    worst = max(kinds, key=lambda kind: fmean(cell.drift.kinds[kind] for cell in cells))
    low, high = min(cell.drift.mean for cell in cells), max(cell.drift.mean for cell in cells)
    spread = f" [{low:+.2f}, {high:+.2f}]" if len(cells) > 1 else ""
    return (
        f"| {name} | {len(cells)} | {fmean(cell.reward for cell in cells):.2f} "
        f"| {fmean(cell.drift.mean for cell in cells):+.2f}{spread} "
        f"| {worst} {fmean(cell.drift.kinds[worst] for cell in cells):+.2f} "
        f"| {fmean(cell.epochs for cell in cells):.0f} "
        f"| {fmean(cell.spend.forward_tokens for cell in cells) / 1000:.1f}k "
        f"| {fmean(cell.seconds for cell in cells):.0f} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
