"""What happened: the rows of the ledger, and what they are made of."""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field

from agent.records.actions import Decision, Rollback
from agent.records.base import Record
from agent.records.edits import Critique
from agent.records.examples import Candidate
from agent.records.signal import Diagnosis, Signal

Role = Literal["planner", "editor", "judge", "chat", "engine"]
"""Who pays for calls: the external LLM in its roles; `engine`, the model under adaptation behind a server."""


class Amounts(Record):
    """Numbers that add up field by field."""

    def __add__(self, other: Self) -> Self:
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})

    def __sub__(self, other: Self) -> Self:
        return type(self)(**{name: getattr(self, name) - getattr(other, name) for name in type(self).model_fields})


class Spend(Amounts):
    """What has been used up. Seconds are wall-clock inside steps; tokens are forward tokens.

    `read_tokens` were run without a gradient and not generated: prompts, and references whose likelihood was asked.
    """

    seconds: float = 0.0
    train_tokens: int = 0
    generated_tokens: int = 0
    read_tokens: int = 0
    llm_tokens: int = 0
    usd: float = 0.0

    def beyond(self, other: "Spend") -> "Spend":
        """Field by field, what this has more than `other`; 0 where it has less."""
        return Spend(**{name: max(value, 0) for name, value in self - other})

    @property
    def forward_tokens(self) -> int:
        """The cost that levers are compared by: tokens run forward once. It is the same on every machine.

        A trained token counts as three: backward costs twice as much as forward (Kaplan et al. 2020, section 2.1).
        """
        return 3 * self.train_tokens + self.generated_tokens + self.read_tokens


class Usage(Amounts):
    """What one role asked of its server. Calls to the server, answers out of the cache, tokens, money."""

    calls: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class Call(Record):
    """A line of calls.jsonl: a call to a server goes in before it is made, at the most it can cost, and again after.

    The later line of a number counts. A call that was never settled (a kill, a time-out) is charged at its most.
    """

    number: int
    role: Role
    model: str
    usage: Usage
    settled: bool = False
    seconds: float = 0.0
    fault: str = ""


class Remaking(Record):
    """Hard train questions rewritten: how many there were, and how many answers to rewrites passed the scorers.

    `before` and `after` are the mean rewards of the model's answers to the questions as given and as rewritten, over
    those tried; 0 where none was.
    """

    asked: int = Field(description="questions that a rewrite was wanted for, from memory or from the LLM")
    tried: int = Field(0, description="of the asked: those that a usable rewrite came for, which the model answered")
    kept: int = Field(description="of the tried: those whose answer passed")
    recalled: int = Field(0, description="of the kept: known to memory, and not asked of the LLM")
    before: float = 0.0
    after: float = 0.0


class SameAnswer(Record):
    """One answer that a pair gives to nearly all validation rows, whatever they ask."""

    answer: str
    rows: int = Field(description="of the answered ones, that get it")
    answered: int


class Trial(Record):
    """What a lever brought: the changed pair (or none, with the reason in `note`), and what it cost."""

    candidate: Candidate | None
    note: str
    loss: float | None = None
    loss_drop: float | None = None
    grad_norm: float | None = None
    grad_drop: float | None = None
    proposals: tuple["Proposal", ...] = ()
    raced: tuple[str, ...] = Field((), description="names of the rows on which the proposals were compared, in order")
    critiques: tuple[Critique, ...] = ()
    remaking: Remaking | None = None
    same_answer: SameAnswer | None = Field(None, description="for people: planners see validation rows in numbers only")
    spend: Spend = Spend()
    cancelled: bool = Field(False, description="the user, or a budget, broke it off: it says nothing about the lever")


class Proposal(Record):
    """One edit that was scored on the minibatch; in older runs, a clear loser on fewer of its rows."""

    prompt: str
    note: str
    merit: float | None = None
    rows: int = Field(0, description="on which the merit was measured; 0 in ledgers that did not count them")
    refused: str = Field("", description="why it was not scored; older ledgers say it in `note`, and have no merit")


class KeptScore(Record):
    """How weights do on another task that they must not lose, under that task's own seed prompt.

    `base` and `reward` are mean joint rewards on its validation rows: of the bare base, and of the weights.
    """

    task: str = Field(description="its path, as `keep` in the task.yaml names it")
    base: float
    reward: float
    rows: int


class Verdict(Record):
    """The gate's word on a trial.

    `before` and `after` are the mean joint rewards of the best pair and of the trial on the validation rows that
    decided: all but those on which the trial was chosen.
    """

    kept: bool
    reason: str
    before: float
    after: float
    p_value: float = Field(description="one-sided, paired sign-flip test of reward and merit together, or of the NLL")
    level: float | None = Field(
        None, description="largest p-value with which the trial is kept; None: nothing was tested, or an older ledger"
    )
    rows: int | None = Field(None, description="validation rows that decided; None in ledgers that did not count them")
    measure: Literal["reward", "merit", "likelihood"] = Field("reward", description="whose difference decided")
    merit_gain: float = Field(0.0, description="difference of the mean merits")
    drift: float | None = Field(
        None,
        description="nats per token that the trial's weights lose on general text, 0 if bare; None: not measured, as "
        "the best pair has the same weights, the text does not fit the window, or the ledger is older",
    )
    drift_before: float | None = Field(None, description="the same of the best pair's weights")
    keep: tuple[KeptScore, ...] = Field((), description="of the trial's weights, if they are new, on tasks to be kept")
    objection: Literal["drift", "keep"] | None = Field(
        None, description="of what the weights lose too much: general text, or a task to be kept"
    )
    overruled: bool = Field(False, description="whether the rewards alone would have kept it, without the objection")

    @property
    def gain(self) -> float:
        return self.after - self.before


class Round(Record):
    """One row of the ledger: what was seen, decided, done, judged, and the best pair after it."""

    number: int
    signal: Signal
    diagnosis: Diagnosis
    decision: Decision
    trial: Trial
    verdict: Verdict
    best: Candidate
    reward: float = Field(description="validation reward of `best`")
    spend: Spend = Field(description="of the run so far, this round included")
    usage: dict[Role, Usage] = Field(default_factory=dict, description="of the LLM, by role, of the run so far")


def tried(history: Iterable[Round]) -> list[Round]:
    """The rounds that say something about their lever: those that were not broken off."""
    return [row for row in history if not row.trial.cancelled]


def standing_rounds(rounds: Iterable[Round]) -> list[frozenset[int]]:
    """For the baseline and each round, the numbers of the rounds that made the pair which stood after it: those that
    were kept, and not undone by a rollback.

    Args:
        rounds: all of a run, from its first.
    """
    stood: list[frozenset[int]] = [frozenset()]
    for number, row in enumerate(rounds, 1):
        move, before = row.decision.move, stood[-1]
        if row.verdict.kept and isinstance(move, Rollback):
            stood.append(stood[move.to_round])
        else:
            stood.append(before | {number} if row.verdict.kept else before)
    return stood


class Baseline(Record):
    """Row 0 of the ledger: the scores of the seed prompt, of the pair that a task starts from, and of what memory
    recalled."""

    number: Literal[0] = 0
    seed: Candidate = Field(description="the first prompt, without an adapter")
    seed_reward: float
    start: Candidate | None = Field(None, description="the first prompt with the task's own adapter, if it brings one")
    start_reward: float | None = None
    recalled: tuple[Proposal, ...] = Field((), description="the seed and what memory recalled, as compared; else empty")
    best: Candidate
    reward: float
    content: float
    style: float
    note: str
    keep: tuple[KeptScore, ...] = Field((), description="of the bare base, on tasks to be kept")
    verdict: Verdict | None = Field(
        None, description="of the best recalled prompt against the seed, where one was judged"
    )
    spend: Spend
    pace: float | None = Field(
        None, description="seconds that a forward token took while the seed was scored, the model being loaded"
    )
    usage: dict[Role, Usage] = Field(default_factory=dict, description="of the LLM, by role: judges score the seed")

    @property
    def brought(self) -> tuple[Candidate, ...]:
        """The pairs that the task came with: a run that ends with one of them has gained nothing."""
        return (self.seed, self.start) if self.start else (self.seed,)


class RoundSummary(Record):
    """A round in short, as a tool answers it to an agent. Rewards are joint rewards in [0, 1], on validation rows."""

    number: int
    action: str
    note: str = Field(description="what was done")
    kept: bool
    reason: str = Field(description="the gate's, for keeping the changed pair or taking it back")
    before: float = Field(description="the pair that stood before, on the rows that decided")
    after: float = Field(description="the changed pair, on the same rows")
    p_value: float
    reward: float = Field(description="the pair that stands now, on all validation rows")
    target: float = Field(description="the reward that the task asks for")
    rounds_left: int
    seconds: float = Field(description="that the action took, its judgement included")


class SplitResult(Record):
    """A mean reward on the sealed test rows with its 95 % bootstrap interval, and the two factors."""

    candidate: Candidate
    reward: float
    low: float
    high: float
    content: float
    style: float
    rows: int
    too_long: int = Field(0, description="of the rows; they do not fit into the model's window, and count as wrong")


class ConstantAnswer(Record):
    """One answer to every test row: the train answer, in the wanted form, that earns most on the train rows."""

    answer: str = ""
    reward: float | None = Field(None, description="mean on the test rows; None: a judge or a reward model scores them")
    most: float | None = Field(None, description="what the train answer earns that the test rows suit best: hindsight")


class Outcome(Record):
    """The end of a run: why it stopped, and both pairs on the test split, opened once unless the run was extended."""

    stopped: str
    drift: float | None = Field(
        None, description="of the best pair's weights, as in Signal; in older ledgers of bare weights None"
    )
    keep: tuple[KeptScore, ...] = Field((), description="of the best pair's weights, on tasks to be kept")
    best: Candidate
    baseline_test: SplitResult
    best_test: SplitResult
    start_test: SplitResult | None = Field(None, description="of the pair that the task starts from, as in Baseline")
    p_value: float
    seen: int = Field(
        0, description="how often the test rows had been opened in this run before: a user went on after seeing them"
    )
    commonest: ConstantAnswer | None = Field(None, description="what answering all alike earns; None in older ledgers")
    spend: Spend
    usage: dict[Role, Usage] = Field(default_factory=dict, description="of the LLM, by role, of the whole run")

    @property
    def drift_of_best(self) -> float | None:
        """Of the best pair's weights, in nats per token: 0 if they are bare, in older ledgers too; None: not known."""
        return self.drift if self.best.adapter else 0.0

    @property
    def one_answer(self) -> float | None:
        """The most that one answer to all test rows could earn; None: not known."""
        constant = self.commonest
        if constant is None or constant.reward is None:
            return None
        return max(constant.reward, constant.most or 0.0)

    @property
    def tested(self) -> list[tuple[str, SplitResult, float | None]]:
        """The pairs that answered the test rows: what each is, its result, and its drift where that is known."""
        found: list[tuple[str, SplitResult, float | None]] = [("seed prompt", self.baseline_test, 0.0)]
        if start := self.start_test:
            found.append(("start", start, self.drift if start.candidate.adapter == self.best.adapter else None))
        return [*found, ("best pair", self.best_test, self.drift_of_best)]
