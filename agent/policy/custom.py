"""A registered policy, held to the run's target and budget."""

from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.policy.base import numbers, stop_reason
from agent.protocols import Briefing, Policy
from agent.records.actions import Decision, Stop


class Custom:
    """Ends the run where every policy has to; else the registered policy decides."""

    def __init__(self, name: str, policy: Policy, config: TaskConfig) -> None:
        self.name = name
        self._policy = policy
        self._config = config

    def decide(self, briefing: Briefing) -> Decision:
        if ended := stop_reason(briefing, self._config):
            shown = numbers(briefing.signal, briefing.diagnosis)
            return Decision(move=Stop(), reason=ended, numbers=shown, by="custom", policy=self.name)
        decision = self._policy.decide(briefing)
        if not isinstance(decision, Decision):
            raise BadInput(
                f"The policy {self.name!r} returned a {type(decision).__name__} and no Decision: write "
                f"Decision(move=…, reason='…')."
            )
        return decision.model_copy(update={"by": "custom", "policy": self.name})
