"""The tools of the LLM planner: the actions it may name in this round, and what it may look at before."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, create_model

from agent.protocols import Briefing
from agent.records.actions import EditPrompt, Enough, Epochs, Rank, Rate, Replay, Rollback, Rows, Stop, TrainLora
from agent.records.base import Record
from agent.records.looks import ClassifyFailures, Evaluate, SearchPrompts, TryPrompt
from agent.records.rounds import Round, standing_rounds, tried


class Reasoned(Record):
    """What every call says besides its arguments."""

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


class PlanEvaluate(Reasoned, Evaluate):
    __doc__ = Evaluate.__doc__


class PlanClassifyFailures(Reasoned, ClassifyFailures):
    __doc__ = ClassifyFailures.__doc__


class PlanSearchPrompts(Reasoned, SearchPrompts):
    __doc__ = SearchPrompts.__doc__


class PlanTryPrompt(Reasoned, TryPrompt):
    __doc__ = TryPrompt.__doc__


ACTION_TOOLS: tuple[type[Reasoned], ...] = (PlanTrainLora, PlanEditPrompt, PlanRollback, PlanStop)
LOOK_TOOLS: tuple[type[Reasoned], ...] = (PlanEvaluate, PlanClassifyFailures, PlanSearchPrompts, PlanTryPrompt)


def offered_actions(briefing: Briefing, would: TrainLora) -> list[type[Reasoned]]:
    """The action tools of this round. What cannot be done now is not in their schemas, so a bad plan gets the range.

    No lever that was turned down; no rollback but to another pair that may stand, see `worth_going_back_to`.

    Args:
        would: the rules' training in this round, whose settings stand where the LLM names none, such as the rows.
    """
    about = TrainLora.model_fields
    train = create_model(
        "PlanTrainLora", __base__=PlanTrainLora, __doc__=TrainLora.__doc__,
        rows=(Rows, Field(would.rows, description=about["rows"].description)),
        epochs=(Epochs, would.epochs), learning_rate=(Rate, would.learning_rate), rank=(Rank, would.rank),
        fresh=(bool, Field(would.fresh, description=about["fresh"].description)), enough=(Enough, would.enough),
        bare=(bool, Field(would.bare, description=about["bare"].description)), replay=(Replay, would.replay),
    )  # fmt: skip
    tools: list[type[Reasoned]] = [train, PlanEditPrompt]
    if rounds := worth_going_back_to(briefing):
        number: Any = Literal[*rounds]  # a type that is made here: no checker can name it
        to_round = (number, Field(description=Rollback.model_fields["to_round"].description))
        tools.append(create_model("PlanRollback", __base__=PlanRollback, __doc__=Rollback.__doc__, to_round=to_round))
    tools.append(PlanStop)
    return [tool for tool in tools if tool.model_fields["action"].default not in briefing.refused]


def worth_going_back_to(briefing: Briefing) -> list[int]:
    """The rounds of `elsewhere` whose pair the gate may keep: each pair once, if its reward is higher than the present
    one's, or equal with as much merit, on the same rows, and it was not judged against that before."""
    history, now = briefing.history, briefing.signal
    stood, signals = _origins(history), [*(row.signal for row in history), now]
    kept = max((number for number, row in enumerate(history, 1) if row.verdict.kept), default=0)
    moves = [row.decision.move for row in tried(history[kept:])]
    seen = {stood[-1], *(stood[move.to_round] for move in moves if isinstance(move, Rollback))}
    worth = []
    for number, (origin, signal) in enumerate(zip(stood, signals, strict=True)):
        if origin not in seen and (signal.reward, signal.merit) >= (now.reward, now.merit):
            worth.append(number)
            seen.add(origin)
    return worth


def elsewhere(history: Sequence[Round]) -> list[int]:
    """The rounds after which another pair stood than does now; 0 is the baseline."""
    stood = _origins(history)
    return [number for number, origin in enumerate(stood) if origin != stood[-1]]


def _origins(history: Sequence[Round]) -> list[int]:
    """For the baseline and each round, the round that brought the pair which stood after it."""
    return [max(made, default=0) for made in standing_rounds(history)]
