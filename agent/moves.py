"""The moves there are, each within its bounds, and the decision for one."""

import re
from typing import Annotated, Literal

from pydantic import Field

from agent.records import Part, Record, Rows


class TrainLora(Record):
    """Tune the weights: train a LoRA adapter on train rows. Slow; teaches facts and skills."""

    action: Literal["train_lora"] = "train_lora"
    rows: Rows = Field(
        "original", description="which rows to train on: as given, remade with the refined prompt, or both"
    )
    epochs: int = Field(3, ge=1, le=20)
    learning_rate: float = Field(1e-3, ge=1e-6, le=1e-2)
    rank: int = Field(16, ge=1, le=256)
    fresh: bool = Field(False, description="start a new adapter instead of continuing the present one")


class EditPrompt(Record):
    """Rewrite the words: system text, demonstrations, how questions are put. Quick and cheap; fixes form and tone."""

    action: Literal["edit_prompt"] = "edit_prompt"
    parts: tuple[Part, ...] = Field(
        ("system", "demos", "questions"), min_length=1, max_length=3, description="what to rewrite"
    )
    failures: Literal["any", "content", "style"] = Field(
        "any", description="which failing train rows to learn from: all, or those that lack this"
    )


class Rollback(Record):
    """Go back to the pair that stood after an earlier round (0 is the baseline)."""

    action: Literal["rollback"] = "rollback"
    to_round: int = Field(ge=0)


class Stop(Record):
    """End the run with the best pair so far."""

    action: Literal["stop"] = "stop"


Move = Annotated[TrainLora | EditPrompt | Rollback | Stop, Field(discriminator="action")]


class Decision(Record):
    """One move, who chose it, why, and the numbers the reason rests on."""

    move: Move
    reason: str
    numbers: dict[str, float] = Field(default_factory=dict)
    by: Literal["rules", "fixed order", "planner", "user"] = "rules"
    rules_would: str | None = Field(
        None, description="what the rules would have done, where somebody else decided: the action, then their reason"
    )

    @property
    def agrees(self) -> bool | None:
        """Whether the rules would have pulled the same lever; None where they were not asked."""
        named = re.match(r"(train_lora|edit_prompt|rollback|stop)\b", self.rules_would or "")
        return None if named is None else named[1] == self.move.action
