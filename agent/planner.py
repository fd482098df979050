"""The external LLM as planner: sees signal, diagnosis and history, calls one bounded tool. The rules stand by."""

from collections.abc import Sequence

from pydantic import Field, TypeAdapter

from agent import policy, prompts
from agent.config import TaskConfig
from agent.errors import LlmUnavailable
from agent.moves import Decision, EditPrompt, Move, Rollback, Stop, TrainLora
from agent.protocols import Briefing, Chat
from agent.records import Diagnosis, Record, Signal
from agent.rounds import Round, Spend

LAST_ROUNDS = 8


class Reasoned(Record):
    """What every plan says besides its move."""

    reason: str = Field(min_length=1, max_length=600, description="one sentence with the numbers it rests on")


class PlanTrainLora(Reasoned, TrainLora):
    __doc__ = TrainLora.__doc__


class PlanEditPrompt(Reasoned, EditPrompt):
    __doc__ = EditPrompt.__doc__


class PlanRollback(Reasoned, Rollback):
    __doc__ = Rollback.__doc__


class PlanStop(Reasoned, Stop):
    __doc__ = Stop.__doc__


TOOLS: tuple[type[Reasoned], ...] = (PlanTrainLora, PlanEditPrompt, PlanRollback, PlanStop)


class LlmPlanner:
    """Asks the LLM for the next move; where it cannot answer within bounds, the rules decide and say so."""

    name = "planner"

    def __init__(self, chat: Chat, config: TaskConfig) -> None:
        self._chat = chat
        self._config = config
        self._rules = policy.Rules(config)

    def decide(self, briefing: Briefing) -> Decision:
        """One decision; `rules_would` keeps the rules' own. Budgets and target are not the LLM's to pass."""
        rules = self._rules.decide(briefing)
        if policy.stop_reason(briefing, self._config):
            return rules
        question = render(briefing.signal, briefing.diagnosis, briefing.history, briefing.spend, rules)
        try:
            plan = self._chat.call_tool(prompts.read("planner"), question, TOOLS)
            move = _bounded(plan, briefing.history, briefing.refused)
        except LlmUnavailable as error:
            return rules.model_copy(update={"reason": f"{rules.reason} (The planner was not used: {error})"})
        return Decision(
            move=move, reason=plan.reason, numbers=rules.numbers, by="planner", rules_would=rules.move.action
        )


def _bounded(plan: Reasoned, history: Sequence[Round], refused: Sequence[str]) -> Move:
    """The plan as a plain move. Raises LlmUnavailable for one that cannot be executed now."""
    move: Move = TypeAdapter(Move).validate_python(plan.model_dump(exclude={"reason"}))
    if move.action in refused:
        raise LlmUnavailable(f"it chose {move.action}, which has been turned down")
    if isinstance(move, Rollback) and move.to_round > len(history):
        raise LlmUnavailable(f"it chose to go back to round {move.to_round} of {len(history)}")
    return move


def render(signal: Signal, diagnosis: Diagnosis, history: Sequence[Round], spend: Spend, rules: Decision) -> str:
    """What the planner is told of a round. No row of the data is in it."""
    return prompts.fill(
        "planner_round",
        signal=signal.model_dump_json(indent=1, exclude_none=True),
        failing=diagnosis.failing,
        total=diagnosis.total,
        style=f"{diagnosis.share('style'):.0%}",
        content=f"{diagnosis.share('content'):.0%}",
        prompt_gap=_number(diagnosis.prompt_gap),
        weight_gap=_number(diagnosis.weight_gap),
        history="\n".join(_line(row) for row in history[-LAST_ROUNDS:]) or "none",
        spend=spend.model_dump_json(),
        rules=f"{rules.move.action}: {rules.reason}",
    )


def _line(row: Round) -> str:
    kept = "kept" if row.verdict.kept else "taken back"
    return (
        f"{row.number}. {row.decision.move.action}: reward {row.verdict.before:.2f} -> {row.verdict.after:.2f}, {kept}"
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
