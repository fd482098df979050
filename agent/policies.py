"""The policy that a task names."""

from agent.config import TaskConfig
from agent.orders import make_order
from agent.protocols import Policy
from agent.rules import Rules


def make_policy(config: TaskConfig) -> Policy:
    """Without the LLM planner, which needs a server."""
    return Rules(config) if config.policy == "rules" else make_order(config)
