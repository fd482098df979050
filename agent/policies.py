"""The policy that a task names."""

from collections.abc import Sequence

from agent.config import TaskConfig
from agent.experience import Experience
from agent.learned import Learned
from agent.orders import make_order
from agent.protocols import Policy
from agent.rules import Rules


def make_policy(config: TaskConfig, experience: Sequence[Experience] = ()) -> Policy:
    """Without the LLM planner, which needs a server. `experience` is of other runs; only `learned` looks at it."""
    if config.policy == "learned":
        return Learned(config, experience)
    return Rules(config) if config.policy == "rules" else make_order(config)
