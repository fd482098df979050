"""How every face says why it was decided so: reasons, what was not done instead, what the planner looked at."""

from collections.abc import Callable

from agent.policy.trust import in_words
from agent.records.actions import Decision
from agent.records.looks import (
    ClassifyFailures,
    Compare,
    Evaluate,
    FailuresClassified,
    Finding,
    Inquiry,
    Look,
    PairsCompared,
    PromptsFound,
    PromptTried,
    RowsScored,
    SearchPrompts,
    TryPrompt,
)
from agent.records.rounds import Proposal
from ui.wording import SORTERS, cut, number, p_value, percent, plural, printable, signed

MOST_OF_TEXT = 160  # characters of a text in a line


def reason(decision: Decision) -> str:
    """Why it was decided so, and why the planner was not used where the rules stood in for it."""
    if not decision.planner_fault:
        return decision.reason
    return f"{decision.reason} (The planner was not used: {decision.planner_fault})"


def decider(decision: Decision) -> str:
    """Who decided. A registered policy, or a schedule, is named; older ledgers do not name theirs."""
    if decision.policy:
        return f"the policy {printable(decision.policy)}"
    return {"custom": "a registered policy", "paper": "the paper's switch"}.get(decision.by, decision.by)


def alternative(decision: Decision) -> str:
    """What the rules would have done, or what was planned where the user decided; empty where that is not known."""
    if decision.alternative:
        return f"{decision.alternative.action}: {decision.alternative.reason}"
    return decision.rules_would or ""


def beside_rules(decision: Decision) -> str:
    """Whether the rules would have used the same lever, with the same settings; empty where that is not known."""
    same = "the same action" if decision.repeats else "same lever, other settings"
    return {True: same, False: "another lever", None: ""}[decision.agrees]


def doubts(decision: Decision) -> list[str]:
    """What was objected to in the planner's first plan, and how far it is trusted: a sentence each, if there is any."""
    said = []
    if against := decision.objection:
        if decision.by != "planner":
            then = "the rules decided"
        else:
            then = "it kept that" if decision.move == against.planned else "then it chose again"
        said.append(
            f"Objection to the planner's first plan, {against.planned}: it promises {signed(against.gain)} merit, the "
            f"rules' action {signed(against.rules_gain)}; {then}."
        )
    now = decision.standing
    if now and (now.rounds or now.elsewhere) and not decision.planner_fault:
        said.append(f"Trust in the planner: {in_words(now)}.")
    return said


def refusal(proposal: Proposal) -> str:
    """What a proposal changed, and why it was not scored."""
    return f"{proposal.note}; {proposal.refused}" if proposal.refused else proposal.note


def inquiry(made: Inquiry) -> str:
    """What a planner looked at before it decided, and what it found, in a line."""
    if made.look is None:
        return f"a call that could not be used: {made.fault}"
    return f"{look(made.look)}: {finding(made.finding) if made.finding else f'nothing, {made.fault}'}"


def look(asked: Look) -> str:
    """What is looked at, in a few words."""
    match asked:
        case Evaluate(split="validation"):
            return "evaluate on validation rows"
        case Evaluate():
            return f"evaluate on {plural(asked.rows, 'train row')}"
        case ClassifyFailures():
            return "classify failures"
        case SearchPrompts():
            return f"search prompts{f' about “{cut(asked.about, MOST_OF_TEXT)}”' if asked.about else ''}"
        case TryPrompt():
            return f"try the prompt on “{cut(asked.question, MOST_OF_TEXT)}”"
        case Compare():
            return f"compare the pairs after rounds {asked.first} and {asked.second}"


def finding(found: Finding) -> str:
    """What a look found, in a line."""
    match found:
        case RowsScored():
            return (
                f"reward {number(found.reward)}, content {number(found.content)}, style {number(found.style)} on "
                f"{plural(found.rows, f'{found.split} row')}; {found.failing} fail ({found.lacking_content} lack "
                f"content, {found.lacking_style} style, {found.lacking_both} both)"
            )
        case FailuresClassified():
            return (
                f"{found.failing} of {found.total} rows fail; of all rows {percent(found.content)} lack content alone, "
                f"{percent(found.style)} style alone, {percent(found.both)} both; sorted by {SORTERS[found.by]}"
            )
        case PromptsFound():
            near = [f"{prompt.run} (reward {number(prompt.reward)})" for prompt in found.prompts]
            return ", ".join(near) or ("none" if found.asked else "the memory is kept out of this run")
        case PromptTried():
            return f"“{cut(found.answer, MOST_OF_TEXT)}”"
        case PairsCompared(same=True):
            return f"the same pair stood after both: reward {number(found.first_reward)}"
        case PairsCompared():
            return (
                f"reward {number(found.first_reward)} and {number(found.second_reward)}; {found.better} of "
                f"{plural(found.rows, 'row')} better, {found.worse} worse, p {p_value(found.p_value)}"
            )


SAYINGS: tuple[Callable[..., str | list[str]], ...] = (
    alternative, beside_rules, decider, doubts, finding, inquiry, look, reason, refusal,
)  # fmt: skip
