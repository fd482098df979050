"""How well a planner chooses: it plans in recorded situations of which is known what each lever really brought."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from agent.config.llm import Llm
from agent.config.task import TaskConfig
from agent.errors import LlmUnavailable, TooLong, Useless
from agent.example_tasks import shipped
from agent.policy.llm_planner import LlmPlanner
from agent.policy.rules import Rules
from agent.protocols import Briefing
from agent.records.actions import Action
from agent.records.base import Record
from agent.records.rounds import Spend
from agent.records.situations import Situation, pull_of
from eval.stats import interval
from memory.storage.disk import whole_lines
from tools.llm.client import LlmChat
from ui.wording import number

R = TypeVar("R", bound=Record)


class Answering:
    """A chat that remembers why it did not answer: a planner leaves such a round to the rules and goes on.

    Satisfies as much of `agent.protocols.Chat` as a planner uses.
    """

    def __init__(self, chat: LlmChat) -> None:
        self._chat = chat
        self.width = chat.width
        self.complete = chat.complete
        self.abandon = chat.abandon
        self.outage: LlmUnavailable | None = None

    def call_tool(self, system: str, user: str, tools: Sequence[type[R]]) -> R:
        """As the chat does it."""
        try:
            return self._chat.call_tool(system, user, tools)
        except LlmUnavailable as error:
            self.outage = None if isinstance(error, Useless | TooLong) else error
            raise


class Planned(NamedTuple):
    """What came of one situation.

    `first` is the planner's first plan, None where it gave none that could be used; `taken` is what a run would do: it
    objects once to a plan that the numbers speak against, and the rules decide where there is none.
    """

    situation: Situation
    first: Action | None
    taken: Action
    rules: Action

    @property
    def good(self) -> bool:
        return self.first is not None and self._best(self.first)

    @property
    def taken_is_good(self) -> bool:
        return self._best(self.taken)

    @property
    def rules_are_good(self) -> bool:
        return self._best(self.rules)

    def _best(self, action: Action) -> bool:
        return pull_of(action) in self.situation.best

    def __str__(self) -> str:
        plan = "no plan that can be used" if self.first is None else str(self.first)
        then = "" if self.first == self.taken else f", so a run does: {self.taken}"
        best = " or ".join(self.situation.best)
        return f"{self.situation.name}: {plan}{then}; {'good' if self.good else f'best is {best}'}"


class Score(NamedTuple):
    """Over situations: how many first plans were as good as the best lever, with a 95 % interval of their share."""

    asked: int
    good: int
    low: float
    high: float
    taken: int
    rules: int
    chance: float

    @property
    def beats_chance(self) -> bool:
        return self.low > self.chance / self.asked

    def __str__(self) -> str:
        return (
            f"{self.good} of {self.asked} plans as good as the best lever (share {number(self.good / self.asked)} "
            f"[{number(self.low)}, {number(self.high)}]); with what a run objects to: {self.taken}; always doing what "
            f"the rules say: {self.rules}; chance: {number(self.chance, 1)}"
        )


def read_situations(most: int) -> list[Situation]:
    """The first so many of those that come with the package; all tasks come before a second seed of one."""
    lines = whole_lines(shipped("practice") / "situations.jsonl")
    return [Situation.model_validate_json(line) for line in islice(lines, most)]


def plan_on(situation: Situation, chat: LlmChat, llm: Llm) -> Planned:
    """The plan of an LLM that nothing is known of yet.

    Raises:
        LlmUnavailable: its server gave no answer at all, which says nothing about its plans.
    """
    answering = Answering(chat)
    config = TaskConfig.model_validate({**situation.task, "planner": "llm", "llm": llm.model_dump()})
    history = situation.history
    spend = history[-1].spend if history else Spend()
    briefing = Briefing(situation.signal, situation.diagnosis, history, spend, failures=situation.failures)
    decision = LlmPlanner(answering, config).decide(briefing)
    if answering.outage:
        raise answering.outage
    first = decision.move if decision.by == "planner" else None
    return Planned(
        situation=situation,
        first=decision.objection.planned if decision.objection else first,
        taken=decision.move,
        rules=Rules(config).decide(briefing).move,
    )


def score(planned: Sequence[Planned]) -> Score:
    """Over at least one situation."""
    good = [float(each.good) for each in planned]
    low, high = interval(good)
    return Score(
        asked=len(planned),
        good=int(sum(good)),
        low=low,
        high=high,
        taken=sum(each.taken_is_good for each in planned),
        rules=sum(each.rules_are_good for each in planned),
        chance=sum(len(each.situation.best) / len(each.situation.outcomes) for each in planned),
    )


def plan_on_all(most: int, chat: LlmChat, llm: Llm, notify: Callable[[str], None]) -> Score:
    """Plan on so many situations, one after the other; raises as `plan_on` does.

    Args:
        notify: takes a sentence on each.
    """
    planned = []
    for place, situation in enumerate(read_situations(most), 1):
        planned.append(plan_on(situation, chat, llm))
        notify(f"situation {place}, {planned[-1]}")
    return score(planned)
