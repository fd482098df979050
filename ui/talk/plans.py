"""What is planned, in words that people use: "train 2 epochs on 48 rows, about 40 s; I expect +0.30"."""

from collections.abc import Iterator

from agent.records.actions import Action, Decision, EditPrompt, Rollback, Stop, TrainLora
from agent.records.base import digest
from agent.records.events import PlanAnswered
from graphs.approval import Cost, Forecast, Question
from ui.decision_wording import alternative, beside_rules, doubts, inquiry, reason
from ui.talk.lines import Line, line
from ui.wording import GLOSSARY, PARTS, action_cost, cut, duration, number, plural, signed

ROWS = {"original": "as they are given", "refined": "in the wanted form", "both": "as given and in the wanted form"}
REOPENS = "After that the run is closed; /set rounds=+2 reopens it, and its test rows then count as seen"
YES_OR_NO = "do it? (yes/no)"
EXPLAINED = ("prompt gap", "weight gap", "luck", "known", "drift")  # numbers whose names do not say what they are


def plan(question: Question) -> Iterator[Line]:
    """The plan of a round: what, how long, what it may bring, why, and what was not done instead."""
    decision = question.decision
    if question.fault:
        yield line(f"That cannot be done: {question.fault}", "fault")
    yield line(f"Round {question.number}: {proposal(decision.move, question)}", "strong")
    yield line(f"  why: {reason(decision)}")
    yield from considered(decision)
    if cost := details(question.cost):
        yield line(f"  cost: {cost}", "dim")
    yield line("  yes, no, or what instead? (/help)", "ask")


def considered(decision: Decision) -> Iterator[Line]:
    """What a decision rests on beside its reason: what was looked at, what is doubted, what was not done instead."""
    for looked in decision.inquiries:
        yield line(f"  looked: {inquiry(looked)}")
    for doubt in doubts(decision):
        yield line(f"  {doubt}")
    if would := alternative(decision):
        same = beside_rules(decision)
        who = "the rules" if decision.by in ("planner", "learned") else "planned was"
        yield line(f"  {who}{f' ({same})' if same else ''}: {would}")


def mark(question: Question) -> str:
    """What tells a plan from another one of the same round: a face gives it back with what was said of the plan."""
    return digest(question.model_dump(mode="json"))


def numbers(decision: Decision) -> Iterator[Line]:
    """The numbers that a decision rests on, as they were before its round; what odd names mean."""
    for name, value in decision.numbers.items():
        meaning = f"   {GLOSSARY[name]}" if name in EXPLAINED else ""
        yield line(f"  {name:<24}{value:10.3f}{meaning}", "dim")


def grounds(question: Question) -> Iterator[Line]:
    """The numbers that the plan of a round rests on."""
    yield line(f"The plan of round {question.number} is to {what(question.decision.move)}.", "strong")
    yield line(f"  {reason(question.decision)}")
    yield from numbers(question.decision)


def proposal(action: Action, question: Question) -> str:
    """An action with the time that it takes and what is expected of it, where that is known."""
    rows = question.cost.training_rows if isinstance(question.cost, Cost) else 0
    tests = question.cost.test_answers // 2 if isinstance(question.cost, Cost) else 0
    text = what(action, rows, tests)
    forecast = next((ahead for ahead in question.forecasts if ahead.lever == action.action), None)
    return f"{text}{expected(action, forecast, question.seconds_left)}"


def what(action: Action, rows: int = 0, tests: int = 0) -> str:
    """An action as a person would say it.

    Args:
        rows, tests: how many train and test rows there are; 0: not known.
    """
    match action:
        case TrainLora():
            bare = ", giving up the few-shot examples of the prompt" if action.bare else ""
            anew = ", a new adapter" if action.fresh else ""
            many = plural(rows, "row") if rows else "the train rows"
            return f"train {plural(action.epochs, 'epoch')} on {many} {ROWS[action.rows]}{bare}{anew}"
        case EditPrompt(instruction=words) if words:
            return f"try your words in the system text: “{cut(words, 80)}”"
        case EditPrompt():
            which = "" if action.failures == "any" else f", from rows that lack {action.failures}"
            return f"rewrite the prompt ({', '.join(PARTS[part] for part in action.parts)}){which}"
        case Rollback(to_round=0):
            return "go back to the baseline"
        case Rollback():
            return f"go back to the pair after round {action.to_round}"
        case Stop():
            opened = plural(tests, "test row") if tests else "the test rows"
            return f"end the run: open {opened}, once, and write the report. {REOPENS}"


def in_short(action: Action) -> str:
    """The same, without what follows from it."""
    return what(action).removesuffix(f". {REOPENS}")


def answered(event: PlanAnswered) -> str:
    """What became of a plan that a user was asked about."""
    match event.answer:
        case "approve":
            return f"Round {event.number} is approved."
        case "edit":
            return f"Round {event.number} is to be another: {in_short(event.move)}."
        case "reject":
            why = f": {event.message}" if event.message else "."
            return f"The user turned {event.move.action} down{why}"


def expected(action: Action, forecast: Forecast | None, seconds_left: float | None = None) -> str:
    """How long it takes at the pace so far, and what is expected of it; empty where neither is known.

    Of a training that is its most: it ends as soon as its rows are learned.
    """
    if forecast is None:
        return ""
    seconds = forecast.seconds
    if seconds and isinstance(action, TrainLora) and forecast.epochs:
        seconds *= action.epochs / forecast.epochs
    most = " at most" if isinstance(action, TrainLora) else ""
    text = f", about {duration(seconds)}{most}" if seconds else ""
    if seconds and seconds_left is not None and seconds > seconds_left:
        text += f" (the budget has only {duration(seconds_left)} left)"
    if forecast.gain is None:
        return text
    spread = "" if forecast.spread is None else f" ± {number(forecast.spread)}"
    return f"{text}; I expect {signed(forecast.gain)}{spread} merit"


def details(cost: Cost | str) -> str:
    """What an action takes at most, in counts; of the end of a run, what has been said already."""
    if isinstance(cost, Cost) and cost.test_answers:
        cost = cost.model_copy(update={"test_answers": 0})
    text = action_cost(cost)
    return "" if text == "nothing" else text


def costly(action: Action) -> bool:
    """Whether it takes long, or cannot be undone: what is asked before it is done unseen."""
    return isinstance(action, TrainLora | Stop)
