"""What the planner reads about a round, in words and numbers. Texts that are not ours are quoted and cut.

Validation rows are there in numbers only; the texts are of train rows, of notes, and of what the planner itself asked.
"""

from collections.abc import Iterator, Sequence

from agent import prompts
from agent.config.task import Budget, TaskConfig
from agent.protocols import Briefing
from agent.records.actions import Decision
from agent.records.looks import (
    FailingRow,
    FailuresClassified,
    Finding,
    Inquiry,
    Look,
    PairsCompared,
    PromptsFound,
    PromptTried,
    RowsScored,
    SearchPrompts,
    TryPrompt,
)
from agent.records.rounds import Baseline, Round, Spend
from agent.records.signal import Outlook, Signal

LAST_ROUNDS, FEWEST_ROUNDS = 8, 2
MOST_FAILURES = 3
MOST_CHARACTERS, MOST_OF_TASK, MOST_OF_ANSWER = 160, 600, 400  # of a field


def from_memory(baseline: Baseline) -> list[str]:
    """What memory found on near tasks and how it did beside the seed prompt, a line each; none if it found nothing."""
    names = ["the seed prompt", *(proposal.note for proposal in baseline.recalled[1:])]
    lines = [
        f"{name}: merit {_number(proposal.merit)} on {proposal.rows} rows"
        for name, proposal in zip(names, baseline.recalled, strict=False)
    ]
    return [baseline.note, *lines] if lines else []


def render(briefing: Briefing, rules: Decision, learned: Decision, config: TaskConfig, short: bool = False) -> str:
    """The planner's message about a round.

    Args:
        rules: what the rules would do.
        learned: what the learned switch would do.
        short: only the last two rounds, no rows and no memory, for a window that is small.
    """
    diagnosis = briefing.diagnosis
    memory, failures = ((), ()) if short else (briefing.recalled, briefing.failures)
    history = list(_rounds(briefing))[-(FEWEST_ROUNDS if short else LAST_ROUNDS) :]
    signal = briefing.signal
    outlooks = [
        f"- {name}: {outlook.gain:+.3f} ± {outlook.spread:.3f} merit for {outlook.cost:,.0f} forward tokens"
        f"{_drift(outlook)}"
        for name, lever in (("edit_prompt", signal.edit), ("train_lora", signal.lora))
        if (outlook := lever.outlook)
    ]
    outlooks += [f"- noise floor: {signal.floor:.3f} merit"] if signal.floor else []
    return prompts.fill(
        "planner_round",
        task=prompts.quoted(prompts.one_line(f"{config.name}. {config.about}"), MOST_OF_TASK),
        editor=config.edit.editor,
        signal=signal.model_dump_json(
            indent=1, exclude_none=True, exclude={"floor": True, "lora": {"outlook": True}, "edit": {"outlook": True}}
        ),
        outlook="\n".join(outlooks) or "- unknown",
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


def render_inquiries(inquiries: Sequence[Inquiry], left: int, short: bool = False) -> str:
    """What the planner has looked at in this round, and how many looks are left. `short`: numbers, no rows."""
    lines = []
    for number, inquiry in enumerate(inquiries, 1):
        if inquiry.look is None:
            lines.append(f"{number}. a call that could not be used: {_quoted(inquiry.fault)}")
        else:
            found = _finding(inquiry.finding, short) if inquiry.finding else f"nothing, {_quoted(inquiry.fault)}"
            lines.append(f"{number}. {_look(inquiry.look)}: {found}")
    more = "1 look is" if left == 1 else f"{left} looks are"
    return prompts.fill(
        "planner_inquiries",
        looked="\n".join(lines) or "nothing yet",
        left=f"{more} left." if left else "No looks are left: choose a lever.",
    )


def _look(look: Look) -> str:
    match look:
        case SearchPrompts(about=about):
            return f"{look.action}{f' about {_quoted(about)}' if about else ''}"
        case TryPrompt(question=question):
            return f"{look.action} {_quoted(question)}"
        case _:
            return look.action


def _finding(finding: Finding, short: bool) -> str:
    match finding:
        case RowsScored():
            rows = "" if short else "".join(f"\n   {_failure(row)}" for row in finding.failures)
            return (
                f"{finding.rows} {finding.split} rows, reward {finding.reward:.2f}, content {finding.content:.2f}, "
                f"style {finding.style:.2f}; {finding.failing} fail: {finding.lacking_content} lack content alone, "
                f"{finding.lacking_style} style alone, {finding.lacking_both} both; {finding.too_long} too long{rows}"
            )
        case FailuresClassified():
            sure = "unknown" if finding.confidence is None else f"{finding.confidence:.0%}"
            return (
                f"{finding.failing} of {finding.total} rows fail, {finding.probed} of them probed; of all rows "
                f"{finding.style:.0%} lack style alone, {finding.content:.0%} content alone, {finding.both:.0%} both; "
                f"mean chance of the likeliest need {sure}, sorted by {finding.by}; prompt gap "
                f"{_number(finding.prompt_gap)}, weight gap {_number(finding.weight_gap)} nats per token"
            )
        case PromptsFound():
            if not finding.prompts:
                return "none" if finding.asked else "this task keeps the memory out of its runs"
            return "; ".join(
                f"{_quoted(found.run)} on task {_quoted(found.task)}, similarity {found.similarity:.2f}, reward "
                f"{found.reward:.2f}, gain {found.gain:+.2f}, demonstrations {len(found.prompt.demos)}, "
                f"{f'retrieved {found.prompt.retrieval.k}, ' if found.prompt.retrieval else ''}"
                f"characters {found.prompt.length}"
                for found in finding.prompts
            )
        case PromptTried():
            return prompts.quoted(prompts.one_line(finding.answer), MOST_OF_ANSWER)
        case PairsCompared():
            return (
                f"reward {finding.first_reward:.2f} after round {finding.first}, {finding.second_reward:.2f} after "
                f"round {finding.second}; {finding.better} of {finding.rows} rows better, {finding.worse} worse "
                f"(p = {finding.p_value:.2g})"
            )


def _drift(outlook: Outlook) -> str:
    """What a lever is expected to cost elsewhere; nothing where it leaves the weights as they are."""
    if not outlook.drift:
        return ""
    return (
        f", drift {outlook.drift:+.2f} nats per token (its price of {outlook.price * outlook.drift:.3f} is taken off)"
    )


def _rounds(briefing: Briefing) -> Iterator[str]:
    """A line a round. What content and style became is known of kept ones: it is the signal of the round after."""
    after = [*(row.signal for row in briefing.history[1:]), briefing.signal]
    for row, signal in zip(briefing.history, after, strict=False):
        spend = row.trial.spend
        used = {
            "tokens trained": spend.train_tokens, "tokens generated": spend.generated_tokens,
            "LLM tokens": spend.llm_tokens, "USD": spend.usd,
        }  # fmt: skip
        costs = [f"took {spend.seconds:.0f} s", *(f"{_plain(value)} {name}" for name, value in used.items() if value)]
        yield f"{row.number}. {row.decision.move}: {_changed(row, signal)}; {', '.join(costs)}"


def _changed(row: Round, after: Signal) -> str:
    before, verdict, trial = row.signal, row.verdict, row.trial
    note = _quoted(trial.note)
    if trial.candidate is None:
        return f"came to nothing, {note}"
    parts = [f"reward {verdict.before:.2f} -> {verdict.after:.2f}"]
    if verdict.kept:
        parts += [f"{name} {getattr(before, name):.2f} -> {getattr(after, name):.2f}" for name in ("content", "style")]
    parts.append(f"{'kept' if verdict.kept else 'taken back'} (p = {verdict.p_value:.2g} by {verdict.measure})")
    if verdict.drift is not None:
        parts.append(f"drift {_number(verdict.drift_before)} -> {verdict.drift:.2f}")
    parts += [f"kept task {_quoted(other.task)} {other.base:.2f} -> {other.reward:.2f}" for other in verdict.keep]
    parts += [f"forgets too much ({verdict.objection})"] if verdict.objection else []
    if trial.loss is not None:
        parts.append(f"loss {trial.loss:.3g}, loss_drop {_number(trial.loss_drop)}")
    return ", ".join([*parts, note])


def _budget(rounds: int, spend: Spend, budget: Budget) -> Iterator[str]:
    yield _used("rounds", rounds, budget.rounds)
    yield _used("minutes", round(spend.seconds / 60, 1), budget.minutes)
    yield _used("tokens trained", spend.train_tokens, budget.train_tokens)
    yield _used("tokens generated", spend.generated_tokens, None)
    yield _used("LLM tokens", spend.llm_tokens, budget.llm_tokens)
    yield _used("USD for the LLM", spend.usd, budget.usd)


def _used(unit: str, used: float, limit: float | None) -> str:
    if limit is None:
        return f"- {unit}: {_plain(used)}, no limit"
    return f"- {unit}: {_plain(used)} of {_plain(limit)}, {_plain(limit - used)} left"


def _plain(value: float) -> str:
    """Whole numbers in full, others to four places."""
    return f"{round(value, 4):,.10g}"


def _failure(row: FailingRow) -> str:
    faults = _quoted(" ".join(row.faults) or "none named")
    return f"- question {_quoted(row.question)} answer {_quoted(row.output)} faults {faults}"


def _quoted(text: str) -> str:
    return prompts.quoted(prompts.one_line(text), MOST_CHARACTERS)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
