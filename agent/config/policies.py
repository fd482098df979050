"""`policy:` in a task.yaml: the names of the policies."""

import re

POLICIES = (
    "rules", "learned", "paper", "lora-only", "prompt-only", "p -> w", "w -> p", "p -> w -> p", "alternate every 1",
    "random",
)  # fmt: skip
PLANNING = ("rules", "learned")  # an LLM may plan in their place
OBSERVING = (*PLANNING, "paper")  # decide by what they observe; the others are there to be compared with
# Any order of p (prompt) and w (weights) will do, and any period; `steps` names each round's lever for itself:
# p, o (weights on rows as given) or r (on refined rows).
PATTERNS = (r"[pw]( -> [pw])*", r"alternate every [1-9]\d*", r"steps [por]+")


def is_policy(name: str) -> bool:
    """Whether a policy of this name comes with the package."""
    return name in POLICIES or any(re.fullmatch(pattern, name) for pattern in PATTERNS)
