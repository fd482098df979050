"""The policy that a task names."""

from collections.abc import Sequence

from agent import extensions
from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.policy.custom import Custom
from agent.policy.experience import Experience
from agent.policy.learned import Learned
from agent.policy.paper import PaperSwitch
from agent.policy.rules import Rules
from agent.policy.schedules import Schedule
from agent.protocols import Policy


def make_policy(config: TaskConfig, experience: Sequence[Experience] = ()) -> Policy:
    """Without the LLM planner, which needs a server. `experience` is of other runs; only `learned` looks at it."""
    if make := extensions.policies.get(config.policy):
        policy = make(config)
        if not callable(getattr(policy, "decide", None)):
            raise BadInput(f"what is registered as policy {config.policy!r} makes {policy!r}, which has no `decide`")
        return Custom(config.policy, policy, config)
    if config.policy == "learned":
        return Learned(config, experience)
    if config.policy == "paper":
        return PaperSwitch(config)
    return Rules(config) if config.policy == "rules" else Schedule(config)
