"""What a task will take: what its rounds took before, or by its sizes; at the rate that earlier runs had here."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pydantic import ValidationError

from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.records.queue import DEAR, Estimate, Rate
from agent.records.rounds import Baseline, Spend
from agent.signal.cost_model import FASTER, estimate_costs
from eval.tasks.task import Task, load_config
from graphs.control.client import environment
from memory.run.folder import RunFolder, runs

LOOKED_AT = 50  # runs, the newest, among which runs of the same task are looked for
EARLIER = 5  # runs that rates are measured on, the newest: a machine is not always as busy
STARTS = 1.3  # baseline and first probes, in answers to all validation rows
PROBES, PROBED = 12, 6  # rows probed before a round, and answers that the probes of a row cost: 2 to 11 in runs
DRIFT = 2200  # tokens of the general texts: read once with each training's weights, and once with the bare model's
BEST = 2  # the best pair's prompt against the seed prompt, in tokens: few-shot examples make it longer
# These three are fitted to 85 runs on ten tasks, whose levers were known: see docs/night.md.
ROLES = 6  # tokens that a chat template puts around a row, which are no characters of it
SOONER = 0.8  # of its epochs that a training needs until its rows are learned
RETRIEVED = 1.0  # of the examples that an edit may retrieve, those that each row is shown once there was one
PROBE = 600.0  # seconds for a probe, the loading of the model included
SMALL = 20_000_000  # bytes of a run without its adapters
ADAPTER = 0.04  # of the model's bytes, at rank 16


class Past(NamedTuple):
    """What earlier runs with the same model say."""

    rate: Rate | None = None
    usd_round: float | None = None
    llm_tokens_round: float | None = None
    adapter_bytes: int = 0


Rates = dict[tuple[str, ...], Rate | None]
"""Of models that were probed, by `TaskConfig.base`."""


def estimate(task: Task, root: Path, probed: Rates | None = None) -> Estimate:
    """What the task will take on this machine. Where no earlier run gives a rate, a process of its own measures it.

    Args:
        root: where the earlier runs are.
        probed: rates measured for other tasks; this one's is added.
    """
    config, past = task.config, read_past(task.config, root)
    prompt = config.prompt.prompt()
    costs = estimate_costs(config, prompt, task.train, task.validation)
    rate, probed = past.rate, {} if probed is None else probed
    if rate is None:
        if config.base not in probed:
            probed[config.base] = _probed(task)
        rate = probed[config.base]
    bare = costs.judging / len(task.validation)
    answer, row = bare + ROLES, fmean(len(prompt.ask(row.question)) + len(row.answer) for row in task.train) / 4
    observing = min(PROBES, len(task.validation)) * PROBED * answer
    judging = len(task.validation) * (answer + RETRIEVED * config.edit.retrieve * (row + ROLES))
    training = SOONER * costs.lora * (row + ROLES) / row
    known = read_rounds(task, root)
    return Estimate(
        start=known.get("start", STARTS * len(task.validation) * answer),
        lora=known.get("train_lora", observing + training + judging + (0 if config.gate.drift is None else DRIFT)),
        edit=known.get("edit_prompt", observing + costs.edit * answer / bare + judging),
        end=known.get("end", (1 + BEST) * answer * len(task.test)),
        trained=round(known.get("trained", training / 3)),
        rounds=config.budget.rounds,
        rate=rate,
        asks_llm=bool(config.roles),
        usd_round=past.usd_round if config.roles else 0.0,
        llm_tokens_round=past.llm_tokens_round if config.roles else 0.0,
        disk=SMALL + config.budget.rounds * (past.adapter_bytes or _guessed_adapter(config)),
    )


def read_past(config: TaskConfig, root: Path) -> Past:
    """What the newest runs with the same model say. Those that cannot be read say nothing."""
    answering, training, paid, talked = Spend(), Spend(), [], []
    adapter_bytes, used = 0, 0
    for run in runs(root):
        try:
            theirs = load_config(run.task_file)
            if theirs.base != config.base or not run.rounds():
                continue
            for lever, spend in _pieces(run):
                if lever == "train_lora":
                    training += spend
                else:
                    answering += spend
                if lever and theirs.roles == config.roles and theirs.llm and config.llm == theirs.llm:
                    paid.append(spend.usd)
                    talked.append(spend.llm_tokens)
        except BadInput:
            continue
        adapter_bytes = max(adapter_bytes, _adapter_bytes(run, theirs.lora.rank, config.lora.rank))
        used += 1
        if used == EARLIER:
            break
    return Past(
        _rate(answering, training, used),
        fmean(paid) if paid else None,
        fmean(talked) if talked else None,
        adapter_bytes,
    )


def read_rounds(task: Task, root: Path) -> dict[str, float]:
    """What start, end and the first rounds of each lever took in the newest runs of this very task.

    Of the same rows, scorers and model, trained, edited and generated by the same settings. In forward tokens; but
    `trained` are tokens trained on, in a round that trains. What no run tells is left out.
    """
    taken, used = dict[str, list[float]](), 0
    for run in runs(root)[:LOOKED_AT]:
        try:
            theirs = load_config(run.task_file)
            first = run.baseline()
            if run.about.digest != task.digest or _makes(theirs) != _makes(task.config) or first is None:
                continue
            for name, tokens in _first_rounds(run, first):
                taken.setdefault(name, []).append(tokens)
        except BadInput:
            continue
        used += 1
        if used == EARLIER:
            break
    return {name: fmean(tokens) for name, tokens in taken.items()}


def _makes(config: TaskConfig) -> tuple[object, ...]:
    """The settings that say how dear a round is."""
    return (*config.base, config.lora, config.edit, config.generation, config.prompt)


def _first_rounds(run: RunFolder, first: Baseline) -> Iterable[tuple[str, float]]:
    yield "start", first.spend.forward_tokens
    seen = dict[str, int]()
    for lever, spend in _pieces(run):
        seen[lever] = seen.get(lever, 0) + 1
        if seen[lever] <= DEAR:
            yield lever or "end", spend.forward_tokens
            if lever == "train_lora":
                yield "trained", spend.train_tokens


def _pieces(run: RunFolder) -> Iterable[tuple[str, Spend]]:
    """What each round of a run used up, with its lever; and its end, with none. The start loads the model: left out."""
    first = run.baseline()
    before = first.spend if first else Spend()
    for row in run.rounds():
        yield row.decision.move.action, row.spend - before
        before = row.spend
    if outcome := run.outcome():
        yield "", outcome.spend - before


def _rate(answering: Spend, training: Spend, used: int) -> Rate | None:
    found = [
        spend.forward_tokens / spend.seconds if spend.seconds > 0 and spend.forward_tokens > 0 else None
        for spend in (answering, training)
    ]
    answers, trains = found
    if answers is None and trains is None:
        return None
    source = "the newest run" if used == 1 else f"the {used} newest runs"
    return Rate(
        answering=answers or (trains or 0) / FASTER,
        training=trains or (answers or 0) * FASTER,
        source=f"{source} with this model",
    )


def _probed(task: Task) -> Rate | None:
    """Measured now; None where the model cannot be loaded, which the run itself will say."""
    command = [sys.executable, "-P", "-m", "graphs.queue.probe"]
    asked = json.dumps({"folder": str(task.folder), "config": task.config.model_dump(mode="json", by_alias=True)})
    try:
        probe = subprocess.run(
            command, input=asked, text=True, capture_output=True, timeout=PROBE, check=True, env=environment()
        )
        return Rate.model_validate_json(probe.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, ValidationError, IndexError):
        return None


def _adapter_bytes(run: RunFolder, rank: int, wanted: int) -> int:
    """The largest adapter of a run, as it would be at another rank."""
    folders = (run.path / "adapters").glob("*/")
    sizes = [sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in folders]
    return round(max(sizes, default=0) * wanted / rank)


def _guessed_adapter(config: TaskConfig) -> int:
    from tools.model import embedded

    folder = embedded.embedded_folder() if config.model == embedded.NAME else Path(config.model).expanduser()
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    return round(ADAPTER * weights * config.lora.rank / 16)
