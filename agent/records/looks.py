"""What a planner or another agent may look at before it acts, and what it finds: nothing here changes the run.

Of validation rows there are numbers only; texts are of train rows and of the agent's own questions. Test rows are
never looked at.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from agent.records.base import Record
from agent.records.examples import Prompt

RoundNumber = Annotated[int, Field(ge=0, description="of a round; 0 is the baseline, before the first round")]

# --- what can be asked -----------------------------------------------------------------------------


class Evaluate(Record):
    """Score the present pair. All validation rows: numbers only. Train rows: numbers, and some that fail."""

    action: Literal["evaluate"] = "evaluate"
    split: Literal["train", "validation"] = Field("train", description="which rows to score")
    rows: int = Field(12, ge=1, le=50, description="how many train rows; of validation rows it is always all")


class ClassifyFailures(Record):
    """Sort the failing validation rows by what they lack, in numbers: content, style, both; how sure that is."""

    action: Literal["classify_failures"] = "classify_failures"


class SearchPrompts(Record):
    """Search the prompts that earlier runs kept on near tasks, and see how they did."""

    action: Literal["search_prompts"] = "search_prompts"
    about: str = Field("", max_length=300, description="what they should be about, in words; empty: this very task")
    limit: int = Field(3, ge=1, le=10, description="how many prompts at most")


class TryPrompt(Record):
    """Ask the present pair a question of your own, and read its answer as it stands."""

    action: Literal["try_prompt"] = "try_prompt"
    question: str = Field(min_length=1, max_length=2000, description="the question, as a user would put it")
    # For a person, who sees them side by side; no planner is offered it.
    beside: SkipJsonSchema[tuple[int, ...]] = Field(
        (), max_length=4, description="also ask the pairs after these rounds; 0: the seed prompt on the bare base"
    )


class Compare(Record):
    """Compare two pairs of the run on all validation rows: those that stood after two of its rounds. Numbers only."""

    action: Literal["compare"] = "compare"
    first: RoundNumber
    second: RoundNumber


Look = Annotated[
    Evaluate | ClassifyFailures | SearchPrompts | TryPrompt | Compare,
    Field(discriminator="action"),
]

# --- what is found ---------------------------------------------------------------------------------


class FailingRow(Record):
    """A train row whose answer fell short, and what was wrong with it."""

    question: str
    output: str
    faults: tuple[str, ...] = ()
    row: str = Field("", description="its name; for people, as is what follows")
    wanted: str = Field("", description="the row's own answer, where the content is wrong: perhaps that is wrong")


class RowsScored(Record):
    """Means over the rows, in [0, 1], and how many fall short of full marks; a row that lacks both counts as `both`."""

    found: Literal["evaluate"] = "evaluate"
    split: Literal["train", "validation"]
    rows: int
    reward: float
    content: float
    style: float
    failing: int
    lacking_content: int = Field(description="of the failing rows: content alone")
    lacking_style: int = Field(description="of the failing rows: style alone")
    lacking_both: int
    too_long: int = Field(description="of the failing rows: they do not fit into the model's window")
    failures: tuple[FailingRow, ...] = Field((), description="some of the failing rows; of train rows only")


class FailuresClassified(Record):
    """What failing validation rows lack. Shares are of all rows; the gaps are in nats per token of the reference."""

    found: Literal["classify_failures"] = "classify_failures"
    failing: int
    total: int
    probed: int
    content: float = Field(description="share of all rows that lack content alone")
    style: float = Field(description="share of all rows that lack style alone")
    both: float = Field(description="share of all rows that lack both")
    confidence: float | None = Field(description="mean chance of the likeliest need; None: rules sorted the rows")
    prompt_gap: float | None = Field(description="loss that demonstrations take away: what words can mend")
    weight_gap: float | None = Field(
        description="loss that stays on the answer with demonstrations: the larger, the less the model knows it"
    )
    by: Literal["rewards", "rules", "model"] = Field(description="who sorted them")


class FoundPrompt(Record):
    """A prompt that an earlier run kept, and how it did there."""

    prompt: Prompt
    run: str
    task: str
    similarity: float = Field(description="cosine similarity of what was searched for and the prompt's task")
    reward: float = Field(description="validation reward in its own run")
    gain: float = Field(description="in reward, over the prompt before it")


class PromptsFound(Record):
    """The nearest first. `asked` is false where the task keeps the memory out of its runs."""

    found: Literal["search_prompts"] = "search_prompts"
    asked: bool
    prompts: tuple[FoundPrompt, ...] = ()


class PromptTried(Record):
    """What the present pair answered to a question."""

    found: Literal["try_prompt"] = "try_prompt"
    question: str
    answer: str
    beside: tuple[str, ...] = Field((), description="answers of the other pairs, in the order asked")


class PairsCompared(Record):
    """Two pairs on the same validation rows. `p_value`: how often chance alone would favour the second so."""

    found: Literal["compare"] = "compare"
    first: int
    second: int
    rows: int
    first_reward: float
    second_reward: float
    better: int = Field(description="rows whose reward is higher under the second pair")
    worse: int = Field(description="rows whose reward is lower under the second pair")
    p_value: float
    same: bool = Field(False, description="whether it is one pair, which stood after both rounds")


Finding = Annotated[
    RowsScored | FailuresClassified | PromptsFound | PromptTried | PairsCompared,
    Field(discriminator="found"),
]


class Inquiry(Record):
    """One call in which a planner looked before it decided: what it asked, why, and what it found.

    Where nothing was found, `fault` says why; a call that could not be read has no `look`.
    """

    look: Look | None = None
    reason: str = ""
    finding: Finding | None = None
    fault: str = ""
