"""The external LLM as planner: looks where it wants to, then names its action in one bounded tool call.

The rules stand by: they decide where it does not answer, or where its answer cannot be used.
"""

from collections.abc import Sequence

from pydantic import TypeAdapter

from agent import prompts
from agent.config.task import TaskConfig
from agent.errors import LlmRefused, LlmUnavailable, NesyLoraError, TooLong, Useless
from agent.policy import trust
from agent.policy.base import numbers, stop_reason
from agent.policy.briefing import MOST_CHARACTERS, render, render_inquiries
from agent.policy.experience import Experience
from agent.policy.learned import Learned
from agent.policy.planner_tools import LOOK_TOOLS, Reasoned, offered_actions
from agent.policy.rules import Rules
from agent.policy.trust import EVEN, LEAST, in_words, may_insist
from agent.protocols import Briefing, Chat, Investigation
from agent.records.actions import Action, Alternative, Decision, Objection, Standing, Stop
from agent.records.looks import Inquiry, Look

ACTION: TypeAdapter[Action] = TypeAdapter(Action)
LOOK: TypeAdapter[Look] = TypeAdapter(Look)


class LlmPlanner:
    """Asks the LLM for the next action; where it cannot answer within bounds, the rules decide, and say so.

    Its trust is earned (`agent.policy.trust`): a plan that promises far less than the rules' action is objected to
    once; an LLM whose own choices keep bringing less than that promise is told so, and then overruled.

    Args:
        chat: the LLM in the role of the planner.
        experience: rounds of other runs: for what the learned switch would do, and for how this LLM did there.
    """

    name = "planner"

    def __init__(self, chat: Chat, config: TaskConfig, experience: Sequence[Experience] = ()) -> None:
        self._chat = chat
        self._config = config
        self._experience = experience
        self._rules = Rules(config)
        self._learned = Learned(config, experience)
        self._earned = config.llm is None or config.llm.trust == "earned"

    def standing(self, briefing: Briefing) -> Standing:
        """How far the LLM is trusted before this round."""
        llm = self._config.llm.of("planner").model if self._config.llm else ""
        return trust.standing(llm, briefing.history, self._experience)

    def asks(self, briefing: Briefing) -> bool:
        """Whether the LLM is asked in this round: the run goes on, its server answers, and it is not overruled."""
        return not (stop_reason(briefing, self._config) or briefing.closed or self._overruled(briefing))

    def _overruled(self, briefing: Briefing) -> bool:
        return self._earned and self.standing(briefing).trust < LEAST

    def decide(self, briefing: Briefing) -> Decision:
        """One decision, with what the rules would have done. Budgets and target are not the LLM's to pass."""
        if stop_reason(briefing, self._config):
            return self._rules.decide(briefing)
        now, rules = self.standing(briefing), self._would(briefing)
        rules = rules.model_copy(update={"standing": now})
        if briefing.closed:
            return rules.model_copy(update={"planner_fault": briefing.closed})
        if self._overruled(briefing):
            return rules.model_copy(update={"planner_fault": f"it is overruled, since {in_words(now)}"})
        consultation = Consultation(self._chat, self._config, briefing, rules, self._learned.decide(briefing))
        try:
            return self._heard(consultation)
        except LlmRefused as error:
            stood_in = self.decide(briefing._replace(closed=str(error)))
        except LlmUnavailable as error:
            stood_in = rules.model_copy(update={"planner_fault": str(error)})
        return stood_in.model_copy(update=consultation.record)

    def _would(self, briefing: Briefing) -> Decision:
        """What the rules would do, unhindered by what the planner tried in vain."""
        rules = self._rules.decide(_unhindered(briefing))
        return rules.model_copy(update={"numbers": numbers(briefing.signal, briefing.diagnosis)})

    def _heard(self, consultation: "Consultation") -> Decision:
        """The LLM's plan; after an objection the second one, or the rules' action where it may not keep the first.

        Raises:
            LlmUnavailable: no answer, or none that names an action.
        """
        briefing, rules = consultation.briefing, consultation.rules
        now, clear = self.standing(briefing), _unhindered(briefing)
        actions = offered_actions(briefing, self._rules.training(clear.signal, clear.history))
        if not actions:
            raise LlmUnavailable("every lever has been turned down")
        told = self._earned and now.trust < EVEN
        plan = consultation.plan(actions, prompts.fill("planner_told", standing=in_words(now)) if told else "")
        if self._earned and (against := self._objection(plan, briefing, rules)):
            plan = consultation.object_to(against, actions, may_insist(against.planned, now))
            again = self._objection(plan, briefing, rules)
            if again and not may_insist(again.planned, now):
                fault = (
                    f"its plan, {again.planned}, promised {again.gain:+.2f} merit where the rules' action promises "
                    f"{again.rules_gain:+.2f}, and a planner may insist on that only where its own choices brought "
                    f"{'more' if isinstance(again.planned, Stop) else 'no less'} than promised: {in_words(now)}"
                )
                return rules.model_copy(update={"planner_fault": fault, **consultation.record})
        return Decision(
            move=move_of(plan),
            reason=f"{plan.reason}{_left_out(plan)}",
            numbers=rules.numbers,
            by="planner",
            alternative=Alternative(action=rules.move, reason=rules.reason),
            standing=now,
            **consultation.record,
        )

    def _objection(self, plan: Reasoned, briefing: Briefing, rules: Decision) -> Objection | None:
        signal = trust.unhindered(briefing.signal, briefing.history)
        return trust.objection(move_of(plan), rules.move, plan.reason, signal, briefing.diagnosis, self._config)


class Consultation:
    """What is said between the program and the LLM in one round: looks, a plan, an objection, a plan again.

    Args:
        rules: what the rules would do.
        learned: what the learned switch would do.
    """

    def __init__(self, chat: Chat, config: TaskConfig, briefing: Briefing, rules: Decision, learned: Decision) -> None:
        self.briefing = briefing
        self.rules = rules
        self._chat = chat
        self._config = config
        self._learned = learned
        self._more = ""
        self._inquiries: list[Inquiry] = []
        self._objection: Objection | None = None
        self._most = config.llm.planner_calls if config.llm and briefing.investigation else 0

    @property
    def record(self) -> dict[str, object]:
        """What a decision keeps of it."""
        return {"inquiries": tuple(self._inquiries), "objection": self._objection}

    def plan(self, actions: Sequence[type[Reasoned]], more: str = "") -> Reasoned:
        """The action that the LLM names, after at most so many looks as the task allows.

        Args:
            more: said at the end of every message.

        Raises:
            LlmUnavailable: no answer; Useless: the last one names no action.
        """
        self._more = more
        while self.briefing.investigation and len(self._inquiries) < self._most:
            try:
                choice = self._ask([*LOOK_TOOLS, *actions])
            except Useless as error:
                self._note(Inquiry(fault=str(error)))
                continue
            if not isinstance(choice, LOOK_TOOLS):
                return choice
            self._note(_looked(choice, self.briefing.investigation, self._inquiries))
        return self._ask(actions)

    def object_to(self, against: Objection, actions: Sequence[type[Reasoned]], may_keep: bool) -> Reasoned:
        """The action that the LLM names once it has seen what speaks against its plan; raises as `plan` does."""
        self._objection = against
        keep = "You may keep yours, if `reason` says what you see that these numbers do not." if may_keep else ""
        self._more += prompts.fill(
            "planner_objection", planned=against.planned, gain=f"{against.gain:+.2f}",
            reason=prompts.quoted(prompts.one_line(against.reason), MOST_CHARACTERS),
            rules=self.rules.move, rules_gain=f"{against.rules_gain:+.2f}", keep=keep,
        )  # fmt: skip
        return self._ask(actions)

    def _note(self, inquiry: Inquiry) -> None:
        self._inquiries.append(inquiry)
        if self.briefing.investigation:
            self.briefing.investigation.note(inquiry)

    def _ask(self, tools: Sequence[type[Reasoned]]) -> Reasoned:
        """The LLM's choice among these tools. Where its window is too small it is told less."""
        try:
            return self._chat.call_tool(*self._messages(), tools)
        except TooLong:
            return self._chat.call_tool(*self._messages(short=True), tools)

    def _messages(self, short: bool = False) -> tuple[str, str]:
        system = prompts.read("planner")
        user = render(self.briefing, self.rules, self._learned, self._config, short)
        if self._most:
            looked, left = self._inquiries, self._most - len(self._inquiries)
            system = f"{system}\n{prompts.fill('planner_looks', calls=self._most)}"
            user = f"{user}\n{render_inquiries(looked, 0 if self._objection else left, short)}"
        return system, f"{user}{self._more}"


def _unhindered(briefing: Briefing) -> Briefing:
    """As if the planner's own choices that were taken back had not been made."""
    signal, history = briefing.signal, briefing.history
    return briefing._replace(signal=trust.unhindered(signal, history), history=trust.without_failed_choices(history))


def move_of(plan: Reasoned) -> Action:
    """The plan's action, without its reason."""
    return ACTION.validate_python(plan.model_dump(exclude={"reason"}))


def _left_out(plan: Reasoned) -> str:
    """A sentence on the settings that the plan did not name, which are the rules'; empty where it named all."""
    settings: dict[str, object] = plan.model_dump(exclude={"reason", "action"} | plan.model_fields_set)
    settings = {name: value for name, value in settings.items() if value not in (None, "")}
    named = [f"{name} {', '.join(value) if isinstance(value, tuple) else value}" for name, value in settings.items()]
    return f" (Left out by the planner, so as the rules have it: {'; '.join(named)}.)" if named else ""


def _looked(choice: Reasoned, investigation: Investigation, before: Sequence[Inquiry]) -> Inquiry:
    """What the look brought. One that is repeated, or that cannot be done, brings nothing and counts all the same."""
    look = LOOK.validate_python(choice.model_dump(exclude={"reason"}))
    asked = Inquiry(look=look, reason=choice.reason)
    if any(inquiry.look == look for inquiry in before):
        return asked.model_copy(update={"fault": "it was asked before in this round"})
    try:
        return asked.model_copy(update={"finding": investigation.look(look)})
    except NesyLoraError as error:
        return asked.model_copy(update={"fault": str(error)})
