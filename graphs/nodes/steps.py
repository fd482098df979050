"""The nodes that begin, decide, remember and finish. Each reads the state, calls a room, and returns what changed."""

from collections.abc import Iterator
from typing import Any, Literal

from langgraph.types import interrupt

from agent.config.task import TaskConfig
from agent.policy.base import stop_reason
from agent.policy.briefing import MOST_FAILURES, from_memory
from agent.protocols import Briefing, Failure
from agent.records.actions import Action, Decision, EditPrompt, Rollback, TrainLora
from agent.records.edits import Edit
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.events import BaselineScored, DecisionMade, RoundJudged, RunFinished
from agent.records.examples import Candidate, Prompt
from agent.records.rounds import Baseline, Outcome, Proposal, Round, Spend, SplitResult, Verdict
from graphs.approval import read
from graphs.nodes.draws import learned_rows, race_rows
from graphs.nodes.judge import gate
from graphs.nodes.levers import race
from graphs.services.context import Context
from graphs.state import State, decided, metered

# --- START → baseline ------------------------------------------------------------------------------


@metered
def baseline(state: State, context: Context) -> dict[str, Any]:
    """Score the seed prompt, and try what memory recalls of earlier runs on near tasks.

    A run that has rounds already goes on after the last of them: the ledger, and no checkpoint, is its truth.
    """
    row = context.folder.baseline()  # written before a kill: by now, memory may recall something else
    if row is None:
        context.fit_rows()
        row = _first_row(state, context)
        context.folder.append(row)
    rounds = context.folder.rounds()  # none but where the run begins anew without its checkpoints
    last = rounds[-1] if rounds else row
    if isinstance(last, Round):
        _pass_on(last, context)  # the kill may have come right after its row
    context.show_report()
    context.tell(BaselineScored(row=row))
    told = last.spend + context.folder.charges.restart(len(rounds))
    return {
        "run": context.folder.name, "number": len(rounds), "best": last.best, "decision": None, "refused": (),
        "spend": told.beyond(state.get("spend", Spend()) + context.meter.spent),
    }  # fmt: skip


def _first_row(state: State, context: Context) -> Baseline:
    seed_prompt = context.spec.config.prompt.prompt()
    seed = Candidate(prompt=context.folder.save_prompt(seed_prompt))
    context.note("Scoring the seed prompt on the validation rows.")
    first = context.evaluate(seed, "validation")
    best, recalled, verdict, note = _try_recalled(state, context, seed_prompt, first)
    return Baseline(
        seed=seed, seed_reward=first.reward, recalled=tuple(recalled), best=best.candidate, reward=best.reward,
        content=best.content, style=best.style, note=note, verdict=verdict, spend=context.meter.spent,
        usage=context.llm.budget.usage,
    )  # fmt: skip


def _try_recalled(
    state: State, context: Context, seed: Prompt, first: Evaluation
) -> tuple[Evaluation, list[Proposal], Verdict | None, str]:
    """The better of the seed and the best recalled prompt; what was tried; the gate's verdict; a sentence about it."""
    found = context.memory.recall()
    if not found:
        nothing = "Memory holds no prompt of a near task." if context.memory.asked else "Memory is not asked."
        return first, [], None, nothing
    edits = [
        Edit(prompt=item.entry.prompt, note=f"recalled from {item.entry.run}, similarity {item.similarity:.2f}")
        for item in found
    ]
    names = race_rows(state, context, first.candidate, [seed, *(edit.prompt for edit in edits)])
    winner, tried = race(edits, seed, None, names, context)
    if winner is None:
        return first, tried, None, f"Prompts recalled by memory: {len(edits)}; none beat the seed on {len(names)} rows."
    second = context.evaluate(Candidate(prompt=winner.id), "validation")
    verdict = gate(first, second, names, (), context)
    kept = "taken up" if verdict.kept else "not taken up"
    return second if verdict.kept else first, tried, verdict, f"A recalled prompt was {kept}: {verdict.reason}"


# --- plan → approve --------------------------------------------------------------------------------


@metered
def plan(state: State, context: Context) -> dict[str, Any]:
    """Signal, diagnosis and spend → a decision with its reason."""
    history = context.folder.rounds()[: state["number"]]
    briefing = Briefing(
        state["signal"], state["diagnosis"], history, state["spend"], state["refused"], closed=_closed(context)
    )
    config = context.spec.config
    if config.plans and not briefing.closed and not stop_reason(briefing, config):
        briefing = _with_material(briefing, state, context)
    decision = context.policy.decide(briefing)
    context.tell(DecisionMade(number=state["number"] + 1, decision=decision))
    return {"decision": decision}


def _with_material(briefing: Briefing, state: State, context: Context) -> Briefing:
    """What only an LLM reads: how recalled prompts did, and some failing train rows, of those an editor learns from."""
    first = context.folder.baseline()
    scores = context.evaluate(state["best"], "train", learned_rows(state, context)).scores
    failures = [_failure(score, context) for score in scores if score.reward < 1][:MOST_FAILURES]
    return briefing._replace(recalled=from_memory(first) if first else (), failures=failures)


def _failure(score: ExampleScore, context: Context) -> Failure:
    wrong = ("The content is wrong.",) if score.content < 1 else ()
    return Failure(context.examples[score.example].question, score.output, (*wrong, *score.faults))


def _closed(context: Context) -> str:
    """Why the planner's server is not asked any more; or any role's, where a refusal is to end the run."""
    config = context.spec.config
    ends = config.llm is not None and config.llm.on_refusal == "stop"
    return context.llm.closed(*(role for role in config.roles if ends or role == "planner"))


@metered
def approve(state: State, context: Context) -> dict[str, Any]:
    """In supervised use, ask. A node of its own without side effect: LangGraph runs it again from its start.

    Resumed with `{"approve": true}`, `{"approve": false}` (plan again, without this lever), or
    `{"instead": {"action": …}}` (the user's own move). Anything else is asked again, with what is wrong as `fault`:
    LangGraph keeps the first answer to an interrupt even where the node raises on it.
    """
    decision = state["decision"]
    if not context.supervised or decision is None:
        return {}
    question = {
        "number": state["number"] + 1,
        "decision": decision.model_dump(mode="json"),
        "cost": _cost(decision.move, context),
    }
    answer, fault = read(interrupt(question), state["number"])
    while answer is None:
        answer, fault = read(interrupt({**question, "fault": fault}), state["number"])
    if answer.instead:
        asked = Decision(
            move=answer.instead,
            reason="Asked for by the user.",
            numbers=decision.numbers,
            by="user",
            rules_would=decision.rules_would or f"{decision.move}: {decision.reason}",
        )
        return {"decision": asked}
    if answer.approve:
        return {}
    return {"decision": None, "refused": (*state["refused"], decision.move.action)}


def _cost(move: Action, context: Context) -> str:
    """What a move will take, in words: the price a user agrees to."""
    task, edit = context.spec, context.spec.config.edit
    if isinstance(move, Rollback):
        return "nothing"
    if isinstance(move, TrainLora):
        cost = (
            f"{move.epochs} epochs over up to {len(task.train)} rows, then {len(task.validation)} answers to judge it"
        )
    elif isinstance(move, EditPrompt):
        tries = f"up to {edit.proposals + 1} prompts on up to {edit.minibatch} rows each"
        cost = f"{tries}, then {len(task.validation)} answers to judge the best"
    else:
        cost = f"{2 * len(task.test)} answers on the test rows"
    return ", and ".join([cost, *_calls(move, task.config, len(task.train))])


def _calls(move: Action, config: TaskConfig, rows: int) -> Iterator[str]:
    """What the external LLM is asked in a move: a critique a row, the steps, and a call for each rewrite.

    Fewer, where fewer train rows fail.
    """
    edit = config.edit
    if isinstance(move, EditPrompt) and "editor" in config.roles:
        steps = min(edit.proposals, len(move.parts) + ("system" in move.parts))  # system text is rewritten twice
        rewrites = edit.rewrites if "questions" in move.parts else 0
        yield f"up to about {min(edit.critiques, rows) + steps + min(rewrites, rows)} calls to the external LLM"
    if "judge" in config.roles:
        yield "calls to the judging LLM for every answer"


def route(state: State) -> Literal["plan", "train_lora", "edit_prompt", "rollback", "finish"]:
    """The one router: to the lever that was decided on, back to the plan if it was turned down, or to the end."""
    if "outcome" in state:
        return "finish"
    decision = state["decision"]
    if decision is None:
        return "plan"
    action = decision.move.action
    return "finish" if action == "stop" else action


# --- remember → finish -----------------------------------------------------------------------------


@metered
def remember(state: State, context: Context) -> dict[str, Any]:
    """Ledger row, prompt memory and report; each idempotent, so that a kill between them does no harm."""
    verdict, trial, number = state["verdict"], state["trial"], state["number"] + 1
    best = trial.candidate if verdict.kept and trial.candidate else state["best"]
    row = Round(
        number=number, signal=state["signal"], diagnosis=state["diagnosis"], decision=decided(state), trial=trial,
        verdict=verdict, best=best, reward=context.evaluate(best, "validation").reward, spend=state["spend"],
        usage=context.llm.budget.usage,
    )  # fmt: skip
    context.folder.append(row)
    _pass_on(row, context)
    context.show_report()
    context.tell(RoundJudged(row=row))
    return {"number": number, "best": best, "refused": (), "decision": None}


def _pass_on(row: Round, context: Context) -> None:
    """Leave to later runs what a round brought. Done again, after a kill, it adds only what was missing."""
    verdict, trial = row.verdict, row.trial.candidate
    if isinstance(row.decision.move, EditPrompt) and trial and (verdict.kept or verdict.gain >= 0):
        context.memory.remember(_entry(context, row, context.folder.prompt(trial.prompt)))
    context.memory.note(row)


def _entry(context: Context, row: Round, prompt: Prompt) -> Any:
    from memory.prompts import Entry

    config, verdict, trial = context.spec.config, row.verdict, row.trial.candidate
    alone = trial is not None and trial.adapter is None  # under an adapter, the reward is not the prompt's own
    return Entry(
        prompt=prompt, task=config.name, profile=context.memory.profile, model=config.model, reward=verdict.after,
        gain=verdict.gain, kept=verdict.kept and alone, round=row.number, run=context.folder.name,
    )  # fmt: skip


@metered
def finish(state: State, context: Context) -> dict[str, Any]:
    """Open the test split, once: the baseline and the best pair on rows that nothing was decided by."""
    from eval import stats

    first = context.folder.baseline()
    assert first is not None, "the baseline node has run before"
    before, after = context.evaluate.open_test(first.seed), context.evaluate.open_test(state["best"])
    outcome = Outcome(
        stopped=decided(state).reason,
        drift=context.drift(state["best"]),
        best=state["best"],
        baseline_test=_result(before),
        best_test=_result(after),
        p_value=stats.sign_flip([b.reward - a.reward for a, b in zip(before.scores, after.scores, strict=True)]),
        spend=state["spend"] + context.meter.spent,
        usage=context.llm.budget.usage,
    )
    context.folder.append(outcome)
    context.show_report()
    context.tell(RunFinished(outcome=outcome))
    return {"outcome": outcome}


def _result(evaluation: Evaluation) -> SplitResult:
    from eval.stats import interval

    low, high = interval([score.reward for score in evaluation.scores])
    return SplitResult(
        candidate=evaluation.candidate, reward=evaluation.reward, low=low, high=high, content=evaluation.content,
        style=evaluation.style, rows=len(evaluation.scores), too_long=evaluation.too_long,
    )  # fmt: skip
