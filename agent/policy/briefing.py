"""What the planner is told of a round, in words and numbers. What was not written by us is quoted and cut."""

from collections.abc import Iterator
from typing import Any

from agent import prompts
from agent.config.task import Budget, TaskConfig
from agent.protocols import Briefing, Failure
from agent.records.actions import Decision
from agent.records.rounds import Baseline, Round, Spend
from agent.records.signal import Signal

LAST_ROUNDS, FEWEST_ROUNDS = 8, 2
MOST_FAILURES = 3
MOST_CHARACTERS, MOST_OF_TASK = 160, 600  # of a field


def from_memory(first: Baseline) -> list[str]:
    """What memory found on near tasks and how it did beside the seed prompt, a line each; none if it found nothing."""
    names = ["the seed prompt", *(tried.note for tried in first.recalled[1:])]
    lines = [
        f"{name}: merit {_number(tried.merit)} on {tried.rows} rows"
        for name, tried in zip(names, first.recalled, strict=False)
    ]
    return [first.note, *lines] if lines else []


def render(briefing: Briefing, rules: Decision, learned: Decision, config: TaskConfig, short: bool = False) -> str:
    """The planner's message. `short`: only the last two rounds, no rows and no memory, for a window that is small."""
    diagnosis = briefing.diagnosis
    memory, failures = ((), ()) if short else (briefing.recalled, briefing.failures)
    history = list(_rounds(briefing))[-(FEWEST_ROUNDS if short else LAST_ROUNDS) :]
    return prompts.fill(
        "planner_round",
        task=prompts.quoted(prompts.one_line(f"{config.name}. {config.about}"), MOST_OF_TASK),
        editor=config.edit.editor,
        signal=_signal(briefing.signal),
        outlook="\n".join(_outlook(briefing.signal)) or "- unknown",
        failing=diagnosis.failing,
        total=diagnosis.total,
        style=f"{diagnosis.share('style'):.0%}",
        content=f"{diagnosis.share('content'):.0%}",
        prompt_gap=_number(diagnosis.prompt_gap),
        weight_gap=_number(diagnosis.weight_gap),
        history="\n".join(history) or "none",
        budget="\n".join(_budget(len(briefing.history), briefing.spend, config.budget)),
        recalled="\n".join(f"- {_quoted(line)}" for line in memory) or "none",
        failures="\n".join(_failure(failure) for failure in failures[:MOST_FAILURES]) or "none",
        refused=", ".join(briefing.refused) or "nothing",
        rules=f"{rules.move}: {rules.reason}",
        learned=f"{learned.move}: {learned.reason}",
    )


def _signal(signal: Signal) -> str:
    """Without what is told as the outlook."""
    outlooks: Any = {"floor": True, "lora": {"outlook"}, "edit": {"outlook"}}
    return signal.model_dump_json(indent=1, exclude_none=True, exclude=outlooks)


def _outlook(signal: Signal) -> Iterator[str]:
    for name, lever in (("edit_prompt", signal.edit), ("train_lora", signal.lora)):
        if outlook := lever.outlook:
            yield f"- {name}: {outlook.gain:+.3f} ± {outlook.spread:.3f} merit for {outlook.cost:,.0f} passes"
    if signal.floor:
        yield f"- noise floor: {signal.floor:.3f} merit"


def _rounds(briefing: Briefing) -> Iterator[str]:
    """A line a round. What content and style became is known of kept ones: it is the signal of the round after."""
    after = [*(row.signal for row in briefing.history[1:]), briefing.signal]
    for row, signal in zip(briefing.history, after, strict=False):
        yield f"{row.number}. {row.decision.move}: {_changed(row, signal)}; {_cost(row.trial.spend)}"


def _changed(row: Round, after: Signal) -> str:
    before, verdict, trial = row.signal, row.verdict, row.trial
    note = _quoted(trial.note)
    if trial.candidate is None:
        return f"came to nothing, {note}"
    said = [f"reward {verdict.before:.2f} -> {verdict.after:.2f}"]
    if verdict.kept:
        said += [f"{name} {getattr(before, name):.2f} -> {getattr(after, name):.2f}" for name in ("content", "style")]
    said.append(f"{'kept' if verdict.kept else 'taken back'} (p = {verdict.p_value:.2g} by {verdict.measure})")
    if trial.loss is not None:
        said.append(f"loss {trial.loss:.3g}, loss_drop {_number(trial.loss_drop)}")
    return ", ".join([*said, note])


def _cost(spend: Spend) -> str:
    used = {
        "tokens trained": spend.train_tokens, "tokens generated": spend.generated_tokens,
        "LLM tokens": spend.llm_tokens, "USD": spend.usd,
    }  # fmt: skip
    return ", ".join(
        [f"took {spend.seconds:.0f} s", *(f"{_plain(value)} {name}" for name, value in used.items() if value)]
    )


def _budget(rounds: int, spend: Spend, budget: Budget) -> Iterator[str]:
    yield _used("rounds", rounds, budget.rounds)
    yield _used("minutes", round(spend.seconds / 60, 1), budget.minutes)
    yield _used("tokens trained", spend.train_tokens, budget.train_tokens)
    yield _used("tokens generated", spend.generated_tokens, None)
    yield _used("LLM tokens", spend.llm_tokens, None)
    yield _used("USD for the LLM", spend.usd, budget.usd)


def _used(what: str, used: float, limit: float | None) -> str:
    if limit is None:
        return f"- {what}: {_plain(used)}, no limit"
    return f"- {what}: {_plain(used)} of {_plain(limit)}, {_plain(limit - used)} left"


def _plain(value: float) -> str:
    """Whole numbers in full, others to four places."""
    return f"{round(value, 4):,.10g}"


def _failure(failure: Failure) -> str:
    faults = _quoted(" ".join(failure.faults) or "none named")
    return f"- question {_quoted(failure.question)} answer {_quoted(failure.output)} faults {faults}"


def _quoted(text: str) -> str:
    return prompts.quoted(prompts.one_line(text), MOST_CHARACTERS)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
