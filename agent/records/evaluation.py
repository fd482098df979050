"""How a pair of prompt and adapter did, row by row, and how rows fit the model's window."""

from statistics import fmean

from pydantic import Field, field_validator

from agent.records.base import Record
from agent.records.examples import Candidate, Split


class ExampleScore(Record):
    """One output and its two rewards, each in [0, 1].

    `faults` are the sentences of style scorers that it falls short of, `remarks` a judge's reasons why content does,
    and `praise` its reasons for full marks. `too_long`: under its prompt the row does not fit into the model's window;
    it was not answered, and counts as wrong.
    """

    example: str
    output: str
    content: float
    style: float
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    praise: tuple[str, ...] = ()
    too_long: bool = False

    @property
    def reward(self) -> float:
        """Content × style, in [0, 1]: right *and* as asked."""
        return self.content * self.style

    @property
    def merit(self) -> float:
        """Mean of reward, content and style, in [0, 1].

        The product is flat while one factor is 0; merit sees the progress of the other.
        """
        return (self.reward + self.content + self.style) / 3


class Evaluation(Record):
    """A candidate's scores on rows of one split, in the order of the rows."""

    candidate: Candidate
    split: Split
    scores: tuple[ExampleScore, ...]

    @property
    def reward(self) -> float:
        return fmean(score.reward for score in self.scores)

    @property
    def content(self) -> float:
        return fmean(score.content for score in self.scores)

    @property
    def style(self) -> float:
        return fmean(score.style for score in self.scores)

    @property
    def merit(self) -> float:
        return fmean(score.merit for score in self.scores)

    @property
    def too_long(self) -> int:
        """Rows that could not be answered within the model's window."""
        return sum(score.too_long for score in self.scores)


class Measurements(Record):
    """All that is known of a candidate on one split, by the row's key: its score, and its reference's NLL.

    The key, made by `eval.runner`, covers the row, its content and the settings that shape an answer.
    """

    candidate: Candidate
    split: Split
    scores: dict[str, ExampleScore] = Field({})
    nats: dict[str, float | None] = Field(
        {}, description="of the reference in the wanted form, per token; None: it cannot be measured"
    )

    @field_validator("scores", mode="before")
    @classmethod
    def reads_the_lists_of_older_runs(cls, scores: object) -> object:
        """Keyed by the row's name, which is never a key: such scores are shown, but measured again."""
        return {score["example"]: score for score in scores} if isinstance(scores, list) else scores

    @field_validator("nats", mode="before")
    @classmethod
    def leaves_out_the_zeros_of_older_runs(cls, nats: object) -> object:
        """There, 0 also meant a row beyond the model's window: such rows are measured again."""
        return {key: value for key, value in nats.items() if value != 0} if isinstance(nats, dict) else nats


class Fitting(Record):
    """How a task's rows fit the model, found out at the start of a run; rows.json, so that a resume takes the same.

    `too_long` names the validation and test rows beyond the window under the seed prompt; `left_out` says whether they
    are left out of the run, or count as wrong. `ends` are texts of end-of-turn tokens that are taken off the answers,
    `demo_ends` those taken off the seed prompt's demonstrations; `emptied` names the rows that are left out since
    their answers held nothing else.
    """

    window: int | None = None
    too_long: tuple[str, ...] = ()
    left_out: bool = False
    ends: tuple[str, ...] = ()
    demo_ends: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()
