"""What a task will take: what its rounds took before, or by its sizes and a few answers; at the rate that runs had."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple, get_args

from pydantic import ValidationError

from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.records.queue import Estimate, Rate
from agent.records.rounds import Baseline, Spend
from agent.signal.cost_model import CHARACTERS, FASTER, Sizes, sizes_of
from agent.signal.monitor import Lever
from agent.signal.run_costs import Counts, Sample, Tried, forecast
from eval.tasks.task import Task, load_config
from graphs.control.process import environment
from memory.run.folder import RunFolder, runs

LOOKED_AT = 50  # runs, the newest, among which runs of the same task are looked for
EARLIER = 5  # runs that rates are measured on, the newest: a machine is not always as busy
TEMPLATE = 10  # tokens that a chat template puts around a question and its answer, where no tokenizer was asked
SYSTEM = 20  # and before them
WINDOW = 8192  # tokens; few models that are trained here read more
PROBE = 600.0  # seconds for a probe of a task, the loading of the model included
SMALL = 20_000_000  # bytes of a run without its adapters
ADAPTER = 0.04  # of the model's bytes, at rank 16


class Past(NamedTuple):
    """What earlier runs with the same model say."""

    rate: Rate | None = None
    loading: float = 0.0
    usd_round: float | None = None
    llm_tokens_round: float | None = None
    adapter_bytes: int = 0


class Known(NamedTuple):
    """What the newest runs of this very task took, in forward tokens; what no run tells is left out.

    `tokens` has start, end and the first rounds of each lever; `trained` is of a round that trains. `levers` are those
    of the newest run that has ended, whatever it was limited by; None: none has.
    """

    tokens: dict[str, float]
    levers: tuple[Lever, ...] | None = None


class Untried(BadInput):
    """Tasks that could be read, and would end before their first step.

    Attributes:
        faults: why, by their place among all.
    """

    def __init__(self, faults: Mapping[int, str]) -> None:
        super().__init__("; ".join(faults.values()))
        self.faults = faults


def estimates(tasks: Sequence[Task], root: Path, try_out: bool = True) -> list[Estimate]:
    """What each task will take on this machine. Those that have not run here are tried out, in a process of its own.

    Args:
        root: where the earlier runs are.
        try_out: load their models for it; else their sizes are guessed by characters.

    Raises:
        Untried: some could not be tried, and will not be able to run either.
    """
    known = [read_rounds(task, root) for task in tasks]
    own_model = [task.config.generation.engine == "own" for task in tasks]  # a trial would say nothing of an engine
    new = [place for place, own in enumerate(known) if own_model[place] and not own.tokens] if try_out else []
    tried = dict(zip(new, probe([tasks[place] for place in new]), strict=True)) if new else {}
    if faults := {place: one.fault for place, one in tried.items() if one.fault}:
        raise Untried(faults)
    samples = dict(
        zip(new, _pooled([tasks[place] for place in new], [one.sample for one in tried.values()]), strict=True)
    )
    return [
        _estimate(task, own, samples.get(place), read_past(task.config, root))
        for place, (task, own) in enumerate(zip(tasks, known, strict=True))
    ]


def _estimate(task: Task, known: Known, sample: Sample | None, past: "Past") -> Estimate:
    config, own = task.config, known.tokens
    counts = Counts(len(task.train), len(task.validation), len(task.test))
    found = forecast(config, counts, sample.sizes if sample else _guessed_sizes(task), sample)
    return Estimate(
        start=own.get("start", found.likely.start),
        lora=own.get("train_lora", found.likely.lora),
        edit=own.get("edit_prompt", found.likely.edit),
        end=own.get("end", found.likely.end),
        trained=round(own.get("trained", found.trained)),
        rounds=config.budget.rounds,
        levers=found.levers if known.levers is None else known.levers[: config.budget.rounds],
        most=found.most,
        rate=past.rate or (sample.rate if sample else None),
        loading=past.loading or (sample.loading if sample else 0.0),
        asks_llm=config.pays,
        usd_round=past.usd_round if config.pays else 0.0,
        llm_tokens_round=past.llm_tokens_round if config.pays else 0.0,
        disk=SMALL + (config.budget.rounds + _checkpoints(config)) * (past.adapter_bytes or _guessed_adapter(config)),
    )


def _checkpoints(config: TaskConfig) -> int:
    """Adapters whose room a training's checkpoint takes: weights and two moments, twice while one is replaced."""
    return 6 if config.lora.checkpoint_seconds else 0


def _guessed_sizes(task: Task) -> Sizes:
    """By characters. Rows too long to be trained on, or answered, do not count."""
    most = task.config.lora.max_tokens * CHARACTERS
    train = [row for row in task.train if len(row.question) <= most] or task.train
    validation = [row for row in task.validation if len(row.question) <= WINDOW * CHARACTERS] or task.validation
    sizes = sizes_of(task.config, task.config.prompt.prompt(), train, validation)
    more = {"asked": sizes.asked + TEMPLATE, "shown": sizes.shown + TEMPLATE, "shared": sizes.shared + SYSTEM}
    return sizes.model_copy(update=more)


def read_past(config: TaskConfig, root: Path) -> Past:
    """What the newest runs with the same model say. Those that cannot be read say nothing."""
    answering, training, paid, talked, loading = Spend(), Spend(), [], [], []
    adapter_bytes, used = 0, 0
    for run in runs(root):
        try:
            theirs = load_config(run.task_file)
            if _answers_by(theirs) != _answers_by(config) or not run.rounds():
                continue
            for lever, spend, own in _pieces(run):
                trained = own if lever == "train_lora" else Spend()
                training += trained
                answering += spend.beyond(trained)
                if lever and config.pays and _pays(theirs) == _pays(config):
                    paid.append(spend.usd)
                    talked.append(spend.llm_tokens)
        except BadInput:
            continue
        if (first := run.baseline()) and first.pace:
            loading.append(first.spend.seconds - first.pace * first.spend.forward_tokens)
        adapter_bytes = max(adapter_bytes, _adapter_bytes(run, theirs.lora.rank, config.lora.rank))
        used += 1
        if used == EARLIER:
            break
    return Past(
        _rate(answering, training, used),
        max(median(loading), 0.0) if loading else 0.0,
        fmean(paid) if paid else None,
        fmean(talked) if talked else None,
        adapter_bytes,
    )


def read_rounds(task: Task, root: Path) -> Known:
    """What the newest runs took that have the same rows, scorers, model and settings of all that makes rounds dear."""
    taken, used = dict[str, list[float]](), 0
    levers: tuple[Lever, ...] | None = None
    for run in runs(root)[:LOOKED_AT]:
        try:
            theirs = load_config(run.task_file)
            first = run.baseline()
            if run.about.digest != task.digest or _makes(theirs) != _makes(task.config) or first is None:
                continue
            for name, tokens in _first_rounds(run, first):
                taken.setdefault(name, []).append(tokens)
            if levers is None and run.outcome() and theirs.policy == task.config.policy:
                levers = tuple(lever for made, *_ in _pieces(run) for lever in get_args(Lever) if made == lever)
        except BadInput:
            continue
        used += 1
        if used == EARLIER:
            break
    return Known({name: fmean(tokens) for name, tokens in taken.items()}, levers)


def _answers_by(config: TaskConfig) -> tuple[str, ...]:
    """The model, and the engine that runs it: each has a rate of its own."""
    return (*config.base, *config.generation.identity)


def _pays(config: TaskConfig) -> tuple[object, ...]:
    """What says how much a round costs."""
    return config.roles, config.llm, config.answer_price


def _makes(config: TaskConfig) -> tuple[object, ...]:
    """The settings that say how dear a round is."""
    return (*config.base, config.lora, config.edit, config.generation, config.prompt)


def _first_rounds(run: RunFolder, first: Baseline) -> Iterable[tuple[str, float]]:
    yield "start", first.spend.forward_tokens
    seen = set[str]()
    for lever, spend, _ in _pieces(run):
        if lever not in seen:
            seen.add(lever)
            yield lever or "end", spend.forward_tokens
            if lever == "train_lora":
                yield "trained", spend.train_tokens


def _pieces(run: RunFolder) -> Iterable[tuple[str, Spend, Spend]]:
    """Each round of a run: its lever, all that it used up, and what the lever did; and the end, with none.

    The start loads the model: left out.
    """
    first = run.baseline()
    before = first.spend if first else Spend()
    for row in run.rounds():
        yield row.decision.move.action, row.spend - before, row.trial.spend
        before = row.spend
    if outcome := run.outcome():
        yield "", outcome.spend - before, Spend()


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


def probe(tasks: Sequence[Task]) -> list[Tried]:
    """Try the tasks out, in order; None where that is not possible, which the run itself will say.

    A process that a task is too large for dies of it: another goes on behind that task.
    """
    found, until = list[Tried](), time.monotonic() + PROBE * len(tasks)
    while len(found) < len(tasks) and (left := until - time.monotonic()) > 0:
        rest = tasks[len(found) :]
        tried = _try_out(rest, left)
        found += tried if len(tried) == len(rest) else [*tried, Tried()]
    return [*found, *[Tried()] * (len(tasks) - len(found))]


def _try_out(tasks: Sequence[Task], seconds: float) -> list[Tried]:
    """What one process says, of the first ones where it has died, or had to be ended."""
    asked = [
        {"folder": str(task.folder), "config": task.config.model_dump(mode="json", by_alias=True)} for task in tasks
    ]
    command = [sys.executable, "-P", "-m", "graphs.queue.probe"]
    try:
        said = subprocess.run(
            command, input=json.dumps(asked).encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=seconds, env=environment(),
        ).stdout  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = late.output or b""
    return [tried for line in said.splitlines() if (tried := _read(line))]


def _read(line: bytes) -> Tried | None:
    """None where something else was printed, by a library that was loaded, or half a line."""
    try:
        return Tried.model_validate_json(line)
    except ValidationError:
        return None


def _pooled(tasks: Sequence[Task], samples: Sequence[Sample | None]) -> list[Sample | None]:
    """The samples with one rate for each model: what a machine does beside changes from minute to minute.

    And with one time of loading: a process loads it once, for the first.
    """
    found = dict[tuple[str, ...], list[Sample]]()
    for task, sample in zip(tasks, samples, strict=True):
        if sample:
            found.setdefault(task.config.base, []).append(sample)
    pooled = dict[tuple[str, ...], dict[str, Rate | float]]()
    for base, same in found.items():
        mean = {name: fmean(getattr(one.rate, name) for one in same) for name in ("answering", "training")}
        pooled[base] = {"rate": same[0].rate.model_copy(update=mean), "loading": max(one.loading for one in same)}
    return [
        sample and sample.model_copy(update=pooled[task.config.base])
        for task, sample in zip(tasks, samples, strict=True)
    ]


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
