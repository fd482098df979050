"""The external LLM as planner: sees signal, diagnosis and history, calls one bounded tool. The rules stand by."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, create_model

from agent import prompts
from agent.config.task import TaskConfig
from agent.errors import LlmRefused, LlmUnavailable, TooLong
from agent.policy.base import stop_reason
from agent.policy.briefing import render
from agent.policy.experience import Experience
from agent.policy.learned import Learned
from agent.policy.rules import Rules
from agent.protocols import Briefing, Chat
from agent.records.actions import (
    Action,
    Decision,
    EditPrompt,
    Enough,
    Epochs,
    Rank,
    Rate,
    Rollback,
    Rows,
    Stop,
    TrainLora,
)
from agent.records.base import Record
from agent.records.rounds import Round


class Reasoned(Record):
    """What every plan says besides its move."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        min_length=1, max_length=600, description="one sentence with the numbers it rests on"
    )


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

    def __init__(self, chat: Chat, config: TaskConfig, experience: Sequence[Experience] = ()) -> None:
        self._chat = chat
        self._config = config
        self._rules = Rules(config)
        self._learned = Learned(config, experience)

    def decide(self, briefing: Briefing) -> Decision:
        """One decision; `rules_would` keeps the rules' own. Budgets and target are not the LLM's to pass."""
        rules = self._rules.decide(briefing)
        if stop_reason(briefing, self._config):
            return rules
        if briefing.closed:
            return _instead(rules, briefing.closed)
        try:
            plan = self._ask(briefing, rules)
        except LlmRefused as error:
            return self.decide(briefing._replace(closed=str(error)))
        except LlmUnavailable as error:
            return _instead(rules, str(error))
        move: Action = TypeAdapter(Action).validate_python(plan.model_dump(exclude={"reason"}))
        would, reason = f"{rules.move}: {rules.reason}", f"{plan.reason}{_left_out(plan)}"
        return Decision(move=move, reason=reason, numbers=rules.numbers, by="planner", rules_would=would)

    def _ask(self, briefing: Briefing, rules: Decision) -> Reasoned:
        """The plan; asked for with less where the LLM's window does not hold all. Raises LlmUnavailable."""
        tools, system = offered(briefing, self._rules), prompts.read("planner")
        if not tools:
            raise LlmUnavailable("every lever has been turned down")
        learned = self._learned.decide(briefing)
        try:
            return self._chat.call_tool(system, render(briefing, rules, learned, self._config), tools)
        except TooLong:
            return self._chat.call_tool(system, render(briefing, rules, learned, self._config, short=True), tools)


def _instead(rules: Decision, why: str) -> Decision:
    return rules.model_copy(update={"reason": f"{rules.reason} (The planner was not used: {why})"})


def _left_out(plan: Reasoned) -> str:
    """What the plan did not say, and has from the rules; empty where it said all."""
    move: dict[str, Any] = plan.model_dump(exclude={"reason", "action"} | plan.model_fields_set)
    told = [f"{name} {', '.join(value) if isinstance(value, tuple) else value}" for name, value in move.items()]
    return f" (Left out by the planner, so as the rules have it: {'; '.join(told)}.)" if told else ""


def offered(briefing: Briefing, rules: Rules) -> list[type[Reasoned]]:
    """The tools of this round. What cannot be done now is not in their schemas, so that a bad plan is told the range.

    No lever that was turned down; no rollback but to a pair other than the present; training as the rules would train
    in this round where the LLM leaves a setting out, such as the rows.
    """
    would, about = rules.training(briefing.signal, briefing.history), TrainLora.model_fields
    train = create_model(
        "PlanTrainLora", __base__=PlanTrainLora, __doc__=TrainLora.__doc__,
        rows=(Rows, Field(would.rows, description=about["rows"].description)),
        epochs=(Epochs, would.epochs), learning_rate=(Rate, would.learning_rate), rank=(Rank, would.rank),
        fresh=(bool, Field(would.fresh, description=about["fresh"].description)), enough=(Enough, would.enough),
    )  # fmt: skip
    tools: list[type[Reasoned]] = [train, PlanEditPrompt, *_rollback(elsewhere(briefing.history)), PlanStop]
    return [tool for tool in tools if tool.model_fields["action"].default not in briefing.refused]


def _rollback(rounds: Sequence[int]) -> Iterator[type[Reasoned]]:
    if rounds:
        one: Any = Literal[*rounds]
        about = Rollback.model_fields["to_round"].description
        yield create_model(
            "PlanRollback", __base__=PlanRollback, __doc__=Rollback.__doc__, to_round=(one, Field(description=about))
        )


def elsewhere(history: Sequence[Round]) -> list[int]:
    """The rounds after which another pair stood than does now; 0 is the baseline."""
    stood = [0]  # for each round, the one that brought the pair which stood after it
    for number, row in enumerate(history, 1):
        move = row.decision.move
        brought = stood[move.to_round] if isinstance(move, Rollback) and row.verdict.kept else number
        stood.append(brought if row.verdict.kept else stood[-1])
    return [number for number, origin in enumerate(stood) if origin != stood[-1]]
