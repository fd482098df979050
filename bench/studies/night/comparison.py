"""Two nights side by side: what each task came to, its ledger, what was spent, and what was paid for twice."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from agent.records.events import Note
from agent.records.rounds import Call, Outcome, Spend
from bench.studies.night.gateway import Answered, read_bill
from bench.studies.night.supervisor import QUEUE, Happened, read_diary
from graphs.queue.shares import spend_of
from memory.queue import QueueFolder
from memory.run.folder import RunFolder

Json = object
PAID = ("spend", "usage", "cost", "pace")  # fields that say what was used up, which is more where steps were done again
TOKENS = ("train_tokens", "generated_tokens", "read_tokens")


class Told(NamedTuple):
    """A night as it stands on disk."""

    queue: QueueFolder
    runs: list[RunFolder]
    diary: list[Happened]
    bill: list[Answered]


class Check(NamedTuple):
    """What must hold, and whether it does."""

    what: str
    holds: bool
    seen: str


def compare(undisturbed: Path, faulted: Path) -> str:
    """Both nights in Markdown: what must hold, the rounds with what was paid twice, and what happened."""
    whole, broken = _told(undisturbed), _told(faulted)
    checks = [check for pair in zip_longest(whole.runs, broken.runs) for check in _of_runs(*pair)]
    checks += [*_of_queues(whole, broken), *_of_bills(broken, "faulted"), *_of_bills(whole, "undisturbed")]
    lines = ["| must hold | | seen |", "| --- | --- | --- |"]
    lines += [f"| {check.what} | {'yes' if check.holds else '**no**'} | {check.seen} |" for check in checks]
    return "\n\n".join(["\n".join(lines), _paid_twice(whole, broken), _happened(broken)]) + "\n"


def _told(home: Path) -> Told:
    queue = QueueFolder.open(home / "runs" / QUEUE)
    runs = [RunFolder.open(queue.root / item.run) for item in queue.read().items if item.run]
    return Told(queue, runs, read_diary(home / "diary.jsonl"), read_bill(home / "bill.jsonl"))


# --- runs -------------------------------------------------------------------------------------------


def _of_runs(whole: RunFolder | None, broken: RunFolder | None) -> Iterator[Check]:
    if whole is None or broken is None:
        yield Check("a task has a run in both nights", False, f"{whole and whole.name}, {broken and broken.name}")
        return
    name, ends = whole.about.task, (whole.outcome(), broken.outcome())
    rewards = [_rewards(run, end) for run, end in zip((whole, broken), ends, strict=True)]
    yield Check(f"{name}: the same best pair, with the same rewards", rewards[0] == rewards[1], rewards[1])
    numbers = [row.number for row in broken.rounds()]
    yield Check(
        f"{name}: every round once", numbers == list(range(1, len(whole.rounds()) + 1)), f"{len(numbers)} rounds"
    )
    found = list(differences(_rows(whole), _rows(broken)))
    yield Check(f"{name}: the same ledger but for what was paid", not found, "; ".join(found)[:300] or "no difference")
    reports = [broken.report_html, broken.report_md]
    yield Check(f"{name}: its reports are there", broken.reported, ", ".join(file.name for file in reports))
    calls = {call.number: call.usage for call in broken.calls()}
    end = ends[1]
    if calls and end:
        tokens, usd = sum(usage.tokens for usage in calls.values()), sum(usage.usd for usage in calls.values())
        holds = end.spend.llm_tokens == tokens and abs(end.spend.usd - usd) < 1e-9
        yield Check(f"{name}: LLM tokens and money are those of its log of calls", holds, f"{tokens:,}, {usd:.6f} USD")


def _rewards(run: RunFolder, end: Outcome | None) -> str:
    if end is None:
        return "it has not ended"
    tested = f"test {end.baseline_test.reward:.4f} → {end.best_test.reward:.4f}"
    rounds = run.rounds()
    return f"validation {rounds[-1].reward if rounds else 0:.4f}, {tested}, {end.best.prompt} {end.best.adapter or '–'}"


def _rows(run: RunFolder) -> list[Json]:
    """The ledger without what was paid, and without rows in which a user or the queue sets limits."""
    rows = [json.loads(line) for line in (run.path / "ledger.jsonl").read_text().splitlines()]
    return [_unpaid(row) for row in rows if row["kind"] != "extension"]


def _unpaid(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _unpaid(inner) for key, inner in value.items() if key not in PAID}
    return [_unpaid(inner) for inner in value] if isinstance(value, list) else value


def differences(first: Json, second: Json, place: str = "") -> Iterator[str]:
    """Where two JSON values differ."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        for key in first:
            yield from differences(first[key], second[key], f"{place}.{key}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (mine, theirs) in enumerate(zip(first, second, strict=True)):
            yield from differences(mine, theirs, f"{place}.{number}")
    elif first != second:
        yield f"{place}: {first} != {second}"


# --- what was paid ----------------------------------------------------------------------------------


def _of_queues(whole: Told, broken: Told) -> Iterator[Check]:
    for night, name in ((whole, "undisturbed"), (broken, "faulted")):
        state, outcomes = night.queue.read(), [run.outcome() for run in night.runs]
        spends = [outcome.spend for outcome in outcomes if outcome]
        total, summed = spend_of(night.queue, state), sum(spends, Spend())
        same = all(abs(getattr(total, field) - getattr(summed, field)) < 1e-6 for field in Spend.model_fields)
        noted = state.ended is not None and state.ended.spend == total
        yield Check(f"{name}: the queue has spent what its runs have", same and noted, _in_words(total))
    steps = [step for pair in zip(whole.runs, broken.runs, strict=False) for step in _steps(*pair)]
    least = min((getattr(step.twice, field) for step in steps for field in TOKENS), default=0)
    yield Check("no step was charged less than in the undisturbed night", least >= 0, f"{len(steps)} steps")
    yield Check("the queue's page is there", broken.queue.page.exists(), broken.queue.page.name)


class _Step(NamedTuple):
    """A round, a start or an end; and what the faulted night has paid for it beyond the other."""

    name: str
    paid: Spend
    twice: Spend


def _steps(whole: RunFolder, broken: RunFolder) -> Iterator[_Step]:
    for (name, mine), (_, theirs) in zip(_pieces(whole), _pieces(broken), strict=False):
        yield _Step(f"{whole.about.task}: {name}", mine, theirs - mine)


def _pieces(run: RunFolder) -> Iterator[tuple[str, Spend]]:
    first, outcome, before = run.baseline(), run.outcome(), Spend()
    totals = [("start", first.spend)] if first else []
    totals += [(f"round {row.number}", row.spend) for row in run.rounds()]
    totals += [("end", outcome.spend)] if outcome else []
    for name, total in totals:
        yield name, total - before
        before = total


def _of_bills(night: Told, name: str) -> Iterator[Check]:
    """The LLM's own bill against the log of calls: nothing is missing, and what was lost is charged at its most."""
    calls: list[Call] = [
        call for run in night.runs for call in {call.number: call for call in run.calls()}.values() if call.usage.calls
    ]
    known = [call for call in calls if call.settled and not call.fault]
    lost = [call for call in calls if not (call.settled and not call.fault)]
    billed = sum(answer.input_tokens + answer.output_tokens for answer in night.bill)
    charged, sure = (sum(call.usage.tokens for call in some) for some in (calls, known))
    yield Check(
        f"{name}: the LLM's bill lies between the calls that came back and all that were charged",
        sure <= billed <= charged,
        f"{sure:,} ≤ {billed:,} ≤ {charged:,} tokens; {len(night.bill)} requests, {len(known)} calls came back, "
        f"{len(lost)} did not",
    )


def _paid_twice(whole: Told, broken: Told) -> str:
    lines = ["| step | tokens, undisturbed | paid beyond that | seconds | beyond |", "| --- | --- | --- | --- | --- |"]
    for pair in zip(whole.runs, broken.runs, strict=False):
        for step in _steps(*pair):
            lines.append(
                f"| {step.name} | {step.paid.forward_tokens:,} | {step.twice.forward_tokens:,} | "
                f"{step.paid.seconds:.0f} | {step.twice.seconds:.0f} |"
            )
    return "\n".join(lines)


def _in_words(spend: Spend) -> str:
    return (
        f"{spend.seconds / 60:.1f} min, {spend.train_tokens:,} tokens trained, {spend.forward_tokens:,} forward, "
        f"{spend.llm_tokens:,} LLM tokens, {spend.usd:.6f} USD"
    )


# --- what happened ----------------------------------------------------------------------------------


def _happened(broken: Told) -> str:
    counts = Counter(entry.what for entry in broken.diary)
    lines = [f"- {what}: {count}" for what, count in sorted(counts.items())]
    lines += [f"- {note}" for note in _notes(broken.runs)]
    return "\n".join(lines)


def _notes(runs: Sequence[RunFolder]) -> Iterator[str]:
    """What the runs say of damage, of waits and of what was made again; each sentence once."""
    for run in runs:
        for text in dict.fromkeys(note.text for note in run.events().of(Note)):
            yield f"{run.about.task}: {text}"
