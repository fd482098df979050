"""The node that decides: signal, diagnosis and spend make a decision with its reason."""

from collections.abc import Sequence

from agent.policy.briefing import MOST_FAILURES, from_memory
from agent.policy.llm_planner import LlmPlanner
from agent.protocols import Briefing
from agent.records.actions import Stop
from agent.records.events import DecisionMade
from agent.records.rounds import Round
from graphs.looking import Looking, failing_rows
from graphs.nodes.remember import refused_after
from graphs.rows.draws import learned_rows
from graphs.services.run import RunServices
from graphs.state import State


def plan(state: State, services: RunServices) -> State:
    """Signal, diagnosis and spend → a decision with its reason."""
    history = services.folder.rounds()[: state["number"]]
    briefing = Briefing(
        state["signal"], state["diagnosis"], history, state["spend"], state["refused"], closed=why_closed(services)
    )
    policy = services.policy
    if isinstance(policy, LlmPlanner) and policy.asks(briefing):
        # What only an LLM reads: how recalled prompts did, and failing train rows, of those an editor learns from.
        first = services.folder.baseline()
        scores = services.evaluate(state["best"], "train", learned_rows(state, services)).scores
        briefing = briefing._replace(
            recalled=from_memory(first) if first else (),
            failures=failing_rows(scores, services)[:MOST_FAILURES],
            investigation=Looking(state, services),
        )
    decision = policy.decide(briefing)
    if isinstance(decision.move, Stop) and _only_cancelled(state, history):
        decision = policy.decide(briefing._replace(refused=()))  # to cancel an action is not to end the run
    services.emit(DecisionMade(number=state["number"] + 1, decision=decision))
    return {"decision": decision}


def _only_cancelled(state: State, history: Sequence[Round]) -> bool:
    """Whether nothing was turned down in this round, but the action of the one before was cancelled."""
    return bool(history) and bool(state["refused"]) and tuple(state["refused"]) == refused_after(history[-1])


def why_closed(services: RunServices) -> str:
    """Why the planner's server is not asked any more; or any role's, where a refusal is to end the run."""
    config = services.spec.config
    ends = config.llm is not None and config.llm.on_refusal == "stop"
    return services.llm.closed(*(role for role in config.roles if ends or role == "planner"))
