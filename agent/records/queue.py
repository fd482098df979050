"""A queue of tasks that are worked on one after another, unattended, within one budget: the rows of queue.jsonl."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from agent.records.base import Record
from agent.records.limits import Limits
from agent.records.rounds import Spend


class NightLimits(Record):
    """What all tasks of a queue may use together, beside what each may use by its own task.yaml. None: no limit."""

    until: datetime | None = Field(None, description="wall-clock time, with its zone, at which all is to be done")
    minutes: float | None = Field(None, gt=0, description="of work, in all processes and evenings together")
    usd: float | None = Field(None, ge=0, description="for the external LLM")
    llm_tokens: int | None = Field(None, gt=0, description="of the external LLM, in and out")
    train_tokens: int | None = Field(None, gt=0, description="trained on")

    @property
    def set(self) -> bool:
        """Whether anything is limited."""
        return any(value is not None for value in self.model_dump().values())


class Rate(Record):
    """How fast this machine works with a model, in forward tokens a second (`Spend.forward_tokens`)."""

    answering: float = Field(gt=0, description="while it answers, probes and reads rows")
    training: float = Field(gt=0, description="of tokens that are trained on, each three")
    source: str = Field(description="what it was measured on, in words")


# What a later round of a lever takes, of its first one: weights have mostly learned their rows, and edits repeat
# themselves. In 124 runs second trainings took 0.65 and second edits 0.8 (medians), third ones 0.3 and 0.4.
LATER = 0.5


class Steps(Record):
    """Forward tokens of the parts of a run. A round is the observing, the lever and the judging together."""

    start: float
    lora: float
    edit: float
    end: float


class Estimate(Record):
    """What a task is estimated to take. Tokens are forward tokens.

    A round is the observing, the lever and the judging together, one of the first. None: not known.
    """

    start: float = Field(description="tokens: the seed prompt scored and the failing rows probed")
    lora: float = Field(description="tokens of a round that trains")
    edit: float = Field(description="tokens of a round that edits")
    end: float = Field(description="tokens: both pairs on the test rows")
    trained: int = Field(description="tokens trained on in a round that trains")
    rounds: int = Field(description="that its budget allows")
    levers: tuple[Literal["train_lora", "edit_prompt"], ...] | None = Field(
        None, description="of the rounds that are likely needed; None in older queues"
    )
    most: Steps | None = Field(None, description="what they take at most; None: not known")
    rate: Rate | None = None
    loading: float = Field(0.0, description="seconds that the model takes to be loaded")
    asks_llm: bool = False
    usd_round: float | None = Field(None, description="of a round, as earlier runs paid it")
    llm_tokens_round: float | None = None
    disk: int = Field(0, description="bytes of the whole run at most; 0: not known")

    def minutes(self, rounds: float, lever: Literal["lora", "edit", "either"] = "either") -> float | None:
        """The time of so many rounds with start and end.

        Args:
            lever: of the rounds; either: half of them train.
        """
        if self.rate is None:
            return None
        lora, edit = self.lora / self.lora_rate, self.edit / self.rate.answering
        half = counted(rounds / 2)
        taken = {"lora": counted(rounds) * lora, "edit": counted(rounds) * edit, "either": half * (lora + edit)}[lever]
        return (self.loading + (self.start + self.end) / self.rate.answering + taken) / 60

    @property
    def tokens(self) -> float:
        """Likely, with start and end: of the rounds that are likely needed; in older queues of all, half training."""
        trainings, edits = self._likely
        return self.start + self.end + trainings * self.lora + edits * self.edit

    @property
    def likely_rounds(self) -> int:
        """Rounds that `tokens` counts."""
        return self.rounds if self.levers is None else len(self.levers)

    @property
    def likely_minutes(self) -> float | None:
        """The time of `tokens`."""
        if self.rate is None:
            return None
        trainings, edits = self._likely
        answering = self.start + self.end + edits * self.edit
        return (self.loading + answering / self.rate.answering + trainings * self.lora / self.lora_rate) / 60

    @property
    def _likely(self) -> tuple[float, float]:
        """Trainings and edits, in rounds that take what the first one is estimated to."""
        if self.levers is None:
            return counted(self.rounds / 2), counted(self.rounds / 2)
        return counted(self.levers.count("train_lora")), counted(self.levers.count("edit_prompt"))

    @property
    def most_tokens(self) -> float | None:
        """With start and end: all rounds, each the dearer of both, and nothing learned before its time."""
        if (most := self.most) is None:
            return None
        return most.start + most.end + self.rounds * max(most.lora, most.edit)

    @property
    def most_minutes(self) -> float | None:
        """The time of `most_tokens`, and no less than what is likely."""
        if self.most is None or self.rate is None:
            return None
        round = max(self.most.lora / self.lora_rate, self.most.edit / self.rate.answering)
        return (self.loading + (self.most.start + self.most.end) / self.rate.answering + self.rounds * round) / 60

    @property
    def lora_rate(self) -> float:
        """Forward tokens a second of a round that trains: some are trained on, the others read and answered."""
        assert self.rate is not None, "asked for where it is known"
        trained = min(3 * self.trained / self.lora, 1) if self.lora else 1.0
        return 1 / (trained / self.rate.training + (1 - trained) / self.rate.answering)

    def end_minutes(self, share: float) -> float:
        """Time that is kept free for the end: all that it may take, as far as start and one round have theirs.

        Args:
            share: minutes that the task may use, its end included. With no more than `least_minutes` it is not begun.
        """
        if self.rate is None or self.least_minutes is None:
            return 0.0
        most = max(self.end, self.most.end) if self.most else self.end
        likely, most = self.end / self.rate.answering / 60, most / self.rate.answering / 60
        return max(likely, min(most, share - self.least_minutes + likely))

    @property
    def least_minutes(self) -> float | None:
        """Time of start, the quicker of both rounds, and the likely end: with less, nothing can be gained."""
        known = [self.minutes(1, "lora"), self.minutes(1, "edit")]
        return min((minutes for minutes in known if minutes is not None), default=None)


def counted(rounds: float) -> float:
    """So many rounds of one lever, in rounds that take what the first one is estimated to."""
    return min(rounds, 1) + LATER * max(rounds - 1, 0)


class QueueBegun(Record):
    """A process takes the queue up, for the first time or again. These limits hold from here on."""

    kind: Literal["begun"] = "begun"
    time: datetime
    limits: NightLimits
    notify: str = Field("", description="a command or an address that is told; see `ui.telling.notify`")


class LimitsChanged(Record):
    """A user has set other limits for the whole queue, maybe while it is worked on. They hold from here on."""

    kind: Literal["limits"] = "limits"
    time: datetime
    limits: NightLimits = Field(description="all that hold now, also those that stayed")


class TaskSkipped(Record):
    """A task that could not be used was left out when the queue was made."""

    kind: Literal["skipped"] = "skipped"
    time: datetime
    task: str = Field(description="as it was named")
    reason: str


class TaskAdded(Record):
    """A task is in the queue: its task.yaml, read when its turn comes."""

    kind: Literal["task"] = "task"
    time: datetime
    number: int = Field(description="1 for the first of the queue")
    name: str
    task: str = Field(description="absolute path of the task.yaml or its folder")
    overrides: tuple[str, ...] = ()
    limits: Limits = Field(description="its own, by its task.yaml")
    estimate: Estimate


class TaskStarted(Record):
    """A run is worked on for a task: a new one, or the same again after it had stopped."""

    kind: Literal["started"] = "started"
    time: datetime
    number: int
    run: str = Field(description="its name; written before the run folder is made")
    after: str = Field("", description="the task's run before this one, where its folder is gone: a new one was begun")


class TaskSpent(Record):
    """What a run has used up by now. It counts even if somebody removes the run's folder."""

    kind: Literal["spent"] = "spent"
    time: datetime
    number: int
    run: str
    spend: Spend


class TaskStopped(Record):
    """A run has stopped before its end, by an error or a kill. What is done about it."""

    kind: Literal["stopped"] = "stopped"
    time: datetime
    number: int
    reason: str
    then: Literal["again", "later"] = Field(description="tried again at once, or after the other tasks")


class TaskEnded(Record):
    """What became of a task."""

    kind: Literal["ended"] = "ended"
    time: datetime
    number: int
    state: Literal["finished", "failed", "removed"] = Field(description="removed: taken out of the queue by a user")
    reason: str = Field(description="why it ended, in words")
    reached: bool = Field(False, description="its target, on the validation rows")
    before: float | None = Field(None, description="joint reward of the seed prompt on the test rows")
    after: float | None = Field(None, description="of the best pair")
    spend: Spend = Spend()


class QueueEnded(Record):
    """No task is left to be worked on, or a limit of the queue is used up."""

    kind: Literal["end"] = "end"
    time: datetime
    reason: str
    spend: Spend = Field(Spend(), description="of all tasks together, in all evenings")


QueueRow = Annotated[
    QueueBegun
    | LimitsChanged
    | TaskSkipped
    | TaskAdded
    | TaskStarted
    | TaskSpent
    | TaskStopped
    | TaskEnded
    | QueueEnded,
    Field(discriminator="kind"),
]
QUEUE_ROW: TypeAdapter[QueueRow] = TypeAdapter(QueueRow)
