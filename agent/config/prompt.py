"""`prompt:` and `edit:` in a task.yaml: the prompt that the run starts from, and how it is rewritten."""

from typing import Literal

from pydantic import Field, model_validator

from agent.config.base import Settings
from agent.records.examples import Demo, Prompt


class SeedPrompt(Settings):
    """The words the run starts from."""

    system: str = ""
    template: str = "{question}"
    demos: tuple[Demo, ...] = ()

    @model_validator(mode="after")
    def keeps_a_place_for_the_question(self) -> "SeedPrompt":
        if "{question}" not in self.template:
            raise ValueError("the template must contain {question}")
        return self

    def prompt(self) -> Prompt:
        return Prompt(system=self.system, template=self.template, demos=self.demos)


class Editing(Settings):
    """The prompt lever."""

    editor: Literal["rules", "textgrad"] = "rules"
    critiques: int = Field(8, ge=1, le=100, description="most failing train rows that TextGrad criticises in a round")
    rewrites: int = Field(12, ge=0, description="hard train questions that TextGrad rewrites in a round; 0: none")
    minibatch: int = Field(
        12, ge=1, description="rows on which proposals are compared; as many train rows are looked at for failures"
    )
    proposals: int = Field(6, ge=1)
    demos: int = Field(4, ge=0, description="most demonstrations in a prompt")
    max_length: int = Field(6000, ge=1, description="most characters in a prompt")

    @property
    def learned_from(self) -> int:
        """Train rows that are answered for editor and planner to learn from; enough for all critiques to be had."""
        return max(self.minibatch, self.critiques) if self.editor == "textgrad" else self.minibatch
