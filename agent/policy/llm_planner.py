"""The external LLM as planner: looks where it wants to, then names its action in one bounded tool call.

The rules stand by: they decide where it does not answer, or where its answer cannot be used.
"""

from collections.abc import Sequence

from pydantic import TypeAdapter

from agent import prompts
from agent.config.task import TaskConfig
from agent.errors import LlmRefused, LlmUnavailable, NesyLoraError, TooLong, Useless
from agent.policy.base import stop_reason
from agent.policy.briefing import render, render_inquiries
from agent.policy.experience import Experience
from agent.policy.learned import Learned
from agent.policy.planner_tools import LOOK_TOOLS, Reasoned, offered_actions
from agent.policy.rules import Rules
from agent.protocols import Briefing, Chat, Investigation
from agent.records.actions import Action, Alternative, Decision
from agent.records.looks import Inquiry, Look

ACTION: TypeAdapter[Action] = TypeAdapter(Action)
LOOK: TypeAdapter[Look] = TypeAdapter(Look)


class LlmPlanner:
    """Asks the LLM for the next action; where it cannot answer within bounds, the rules decide, and say so.

    Args:
        chat: the LLM in the role of the planner.
        experience: rounds of other runs, for what the learned switch would do.
    """

    name = "planner"

    def __init__(self, chat: Chat, config: TaskConfig, experience: Sequence[Experience] = ()) -> None:
        self._chat = chat
        self._config = config
        self._rules = Rules(config)
        self._learned = Learned(config, experience)

    def decide(self, briefing: Briefing) -> Decision:
        """One decision, with what the rules would have done. Budgets and target are not the LLM's to pass."""
        rules = self._rules.decide(briefing)
        if stop_reason(briefing, self._config):
            return rules
        if briefing.closed:
            return rules.model_copy(update={"planner_fault": briefing.closed})
        inquiries: list[Inquiry] = []
        try:
            plan = self._plan(briefing, rules, inquiries)
        except LlmRefused as error:
            stood_in = self.decide(briefing._replace(closed=str(error)))
            return stood_in.model_copy(update={"inquiries": tuple(inquiries)})
        except LlmUnavailable as error:
            return rules.model_copy(update={"planner_fault": str(error), "inquiries": tuple(inquiries)})
        return Decision(
            move=ACTION.validate_python(plan.model_dump(exclude={"reason"})),
            reason=f"{plan.reason}{_left_out(plan)}",
            numbers=rules.numbers,
            by="planner",
            alternative=Alternative(action=rules.move, reason=rules.reason),
            inquiries=tuple(inquiries),
        )

    def _plan(self, briefing: Briefing, rules: Decision, inquiries: list[Inquiry]) -> Reasoned:
        """The action that the LLM names, after at most so many looks as the task allows; each is added to `inquiries`.

        Raises:
            LlmUnavailable: no answer; Useless: the last one names no action. What it looked at stands in `inquiries`.
        """
        actions, learned = offered_actions(briefing, self._rules), self._learned.decide(briefing)
        if not actions:
            raise LlmUnavailable("every lever has been turned down")
        most = self._config.llm.planner_calls if self._config.llm and briefing.investigation else 0

        def ask(tools: Sequence[type[Reasoned]], short: bool = False) -> Reasoned:
            system, user = prompts.read("planner"), render(briefing, rules, learned, self._config, short)
            if most:
                system = f"{system}\n{prompts.fill('planner_looks', calls=most)}"
                user = f"{user}\n{render_inquiries(inquiries, most - len(inquiries), short)}"
            return self._chat.call_tool(system, user, tools)

        def ask_within_window(tools: Sequence[type[Reasoned]]) -> Reasoned:
            try:
                return ask(tools)
            except TooLong:
                return ask(tools, short=True)

        while briefing.investigation and len(inquiries) < most:
            try:
                choice = ask_within_window([*LOOK_TOOLS, *actions])
            except Useless as error:
                inquiries.append(Inquiry(fault=str(error)))
                briefing.investigation.note(inquiries[-1])
                continue
            if not isinstance(choice, LOOK_TOOLS):
                return choice
            inquiries.append(_looked(choice, briefing.investigation, inquiries))
            briefing.investigation.note(inquiries[-1])
        return ask_within_window(actions)


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


def _left_out(plan: Reasoned) -> str:
    """The settings that the plan did not name, and has from the rules, as a sentence; empty where it named all."""
    settings: dict[str, object] = plan.model_dump(exclude={"reason", "action"} | plan.model_fields_set)
    named = [f"{name} {', '.join(value) if isinstance(value, tuple) else value}" for name, value in settings.items()]
    return f" (Left out by the planner, so as the rules have it: {'; '.join(named)}.)" if named else ""
