"""The actions there are, each within its bounds, and the decision for one."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from agent.counting import plural
from agent.records.base import Record
from agent.records.examples import Part
from agent.records.looks import Inquiry

Rows = Literal["original", "refined", "both"]
MOST_EPOCHS = 20
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS, description="at most; fewer once the rows are learned")]
Rate = Annotated[
    float,
    Field(ge=1e-6, le=1e-2, description="AdamW's peak learning rate, no unit; 1e-3 is usual for LoRA on a small model"),
]
Rank = Annotated[
    int, Field(ge=1, le=256, description="rank of the LoRA matrices; counts only where a new adapter is started")
]

Enough = Annotated[
    float, Field(ge=0, le=10, description="nats per token; an epoch whose mean loss is below ends the round early")
]
Replay = Annotated[
    float,
    Field(ge=0, le=4, description="general rows per training row, on which the base's predictions are kept; 0: none"),
]


class TrainLora(Record):
    """Tune the weights: train a LoRA adapter on train rows. Slow and costly; teaches facts and skills (content)."""

    action: Literal["train_lora"] = "train_lora"
    rows: Rows = Field(
        "original",
        description="which train rows: as given with the seed prompt, remade into the wanted form with the present "
        "prompt, or both",
    )
    epochs: Epochs = 3
    learning_rate: Rate = 1e-3
    rank: Rank = 16
    fresh: bool = Field(False, description="true: start a new adapter; false: train on the present one, if any")
    bare: bool = Field(
        False,
        description="true: without the few-shot examples of the present prompt, which the pair then gives up: rows are "
        "several times shorter, and weights have to learn what the examples brought; false: under the whole prompt",
    )
    enough: Enough = 0.005
    replay: Replay | None = Field(
        None, description="general rows per training row, against forgetting; null: as the task sets it"
    )

    def __str__(self) -> str:
        """The action with its settings, in a line; so for every action."""
        rows = "original and refined" if self.rows == "both" else self.rows
        epochs = plural(self.epochs, "epoch")
        anew = ", a new adapter" if self.fresh else ""
        shorter = ", without few-shot examples" if self.bare else ""
        beside = f", {self.replay:g} general rows each" if self.replay else ""
        how = f"{epochs} at rate {self.learning_rate:g}, rank {self.rank}"
        return f"train_lora on {rows} rows, {how}{beside}{shorter}{anew}"


class EditPrompt(Record):
    """Rewrite the words around every question. Quick and cheap; mends form, tone and constraints (style)."""

    action: Literal["edit_prompt"] = "edit_prompt"
    parts: tuple[Part, ...] = Field(
        ("system", "demos", "questions", "retrieval"),
        min_length=1,
        max_length=4,
        description="what to rewrite: the system text, the demonstrations, how questions are put, and whether each "
        "question gets the train rows nearest to it as few-shot examples",
    )
    failures: Literal["any", "content", "style"] = Field(
        "any",
        description="which failing train rows to learn from: all, or only those that the classifier says lack this",
    )
    # No planner is offered it: it is a person's, or that of an agent that speaks for one.
    instruction: SkipJsonSchema[str] = Field(
        "",
        max_length=4000,
        description="words of the user's own for the system text, which are tried in place of an editor's proposals",
    )

    def __str__(self) -> str:
        if self.instruction:
            return f"edit_prompt with the words {self.instruction!r}"
        rows = "" if self.failures == "any" else f", from rows that lack {self.failures}"
        return f"edit_prompt of {', '.join(self.parts)}{rows}"


class Rollback(Record):
    """Go back to the pair of prompt and adapter that stood after an earlier round."""

    action: Literal["rollback"] = "rollback"
    to_round: int = Field(ge=0, description="number of that round; 0 is the baseline, before the first round")

    def __str__(self) -> str:
        return f"rollback to round {self.to_round}"


class Stop(Record):
    """End the run with the best pair so far. Final."""

    action: Literal["stop"] = "stop"

    def __str__(self) -> str:
        return "stop"


ACTION_NAMES = ("train_lora", "edit_prompt", "rollback", "stop")
Action = Annotated[TrainLora | EditPrompt | Rollback | Stop, Field(discriminator="action")]


def named(action: Action) -> dict[str, Any]:
    """The settings that whoever made this action has named, as JSON values: the others are the run's to fill in."""
    return action.model_dump(mode="json", exclude_unset=True, exclude={"action"})


class Alternative(Record):
    """The action that was not taken, and the reason for it."""

    action: Action
    reason: str


class Objection(Record):
    """What the planner was told against its first plan of a round: what both promise by the run's numbers, in merit."""

    planned: Action
    reason: str = Field(description="the planner's, for that plan")
    gain: float = Field(description="what the plan promises")
    rules_gain: float = Field(description="what the rules' action promises")


class Standing(Record):
    """How far an LLM is trusted as planner before a round; see `agent.policy.trust`.

    Its own choices are those that differ from the rules'. Sums are over those of this run: merit that they brought and
    that the rules' actions promised instead, and the forward tokens of both.
    """

    llm: str
    trust: float = Field(description="chance that its own choices bring no less than the rules' promise")
    rounds: int = Field(0, description="own choices in this run")
    gained: float = 0.0
    promised: float = 0.0
    cost: float = 0.0
    promised_cost: float = 0.0
    elsewhere: int = Field(0, description="own choices in other runs")
    beyond_elsewhere: float = Field(0.0, description="merit a round that those brought beyond the promise; the mean")


class Decision(Record):
    """One action (`move`), who chose it, why, and the numbers the reason rests on."""

    move: Action
    reason: str
    numbers: dict[str, float] = Field(default_factory=dict)
    by: Literal["rules", "learned", "paper", "fixed order", "planner", "user", "custom"] = "rules"
    policy: str = Field("", description="the name of the schedule or of the registered policy, where one decided")
    alternative: Alternative | None = Field(
        None,
        description="what the rules would have done, where planner or learned switch decided; what was planned, where "
        "the user did",
    )
    rules_would: str | None = Field(None, description="`alternative` as a sentence, in ledgers of older versions")
    planner_fault: str = Field("", description="why the planner was not used, where the rules stood in for it")
    inquiries: tuple[Inquiry, ...] = Field((), description="what the planner looked at before it decided")
    objection: Objection | None = Field(None, description="what spoke against the planner's first plan")
    standing: Standing | None = Field(None, description="of the planner, before this round")

    @property
    def repeats(self) -> bool:
        """Whether the alternative is just this action, settings and all."""
        if self.alternative:
            return self.alternative.action == self.move
        return (self.rules_would or "").startswith(f"{self.move}: ")

    @property
    def agrees(self) -> bool | None:
        """Whether the alternative pulls the same lever; None where there is none."""
        if self.alternative:
            return self.alternative.action.action == self.move.action
        lever = (self.rules_would or "").replace(":", " ").partition(" ")[0]
        return lever == self.move.action if lever in ACTION_NAMES else None
