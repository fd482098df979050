"""`nesylora check-llm`: is this server good enough? Asks it as planner, editor and judge once, and says what worked."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import NamedTuple, get_args

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from agent.config.llm import Llm, OutputMethod
from agent.config.prompt import Editing
from agent.config.scorers import Contains, Judge, StartsWith
from agent.config.task import TaskConfig
from agent.errors import BadInput, LlmUnavailable
from agent.policy.llm_planner import TOOLS, LlmPlanner
from agent.protocols import Briefing
from agent.records.actions import EditPrompt
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate, Example, Prompt
from agent.records.rounds import Role, Usage
from agent.records.signal import Diagnosis, ExampleDiagnosis, LeverSignal, Need, Signal
from eval.scorers.judge import LlmJudge
from eval.scoring import TaskScorers
from eval.tasks.config_errors import sentences
from tools.editing.textgrad_editor import TextGradEditor
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.client import LlmChat
from tools.llm.retry import ServerRetry
from tools.llm.schema import tool_name
from ui import wording
from ui.commands.pace import fitting_timeout, fitting_width, measured

ABOUT_WAYS: dict[OutputMethod, str] = {
    "tools": "tool calling: one of several tools",
    "one tool": "tool calling: one tool by its name",
    "schema": "structured output: JSON schema",
    "object": "structured output: JSON object",
    "text": "JSON, asked for in plain words",
}
LATE, MOST_LATE = "did not answer in time", 3  # two ways of asking may be without end
WITHOUT = {
    "planner": "without it: planner: none, and the rules decide",
    "editor": "without it: edit.editor: rules",
    "judge": "without it: no scorers of kind: judge",
}
SCORERS = TaskScorers([Contains(kind="contains")], [StartsWith(kind="starts_with", text="ANSWER: ")])
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"}
ROWS = {
    f"train:{line}": Example(name=f"train:{line}", question=f"What is the capital of {land}?", answer=city)
    for line, (land, city) in enumerate(CAPITALS.items(), 1)
}
PROMPT = Prompt(system="Answer the question.")
MARK = "ANSWER:"
NO_STYLE = Signal(reward=0.1, content=0.9, style=0.1, noise=0.05)
NO_CONTENT = Signal(
    reward=0.1,
    content=0.1,
    style=1.0,
    refined=True,
    noise=0.05,
    edit=LeverSignal(rounds=3, kept=1, fruitless=2, saturated=True),
)


class Finding(NamedTuple):
    """One check: whether the server passed it, what it said, and the seconds it took."""

    what: str
    good: bool
    said: str
    seconds: float


class Bench:
    """What the checks ask the server with: chats in every role, on one budget."""

    def __init__(self, settings: Llm, tell: Callable[[str], None]) -> None:
        self.settings = settings
        self.book = UnsavedCallLog()
        self.budget = LlmBudget(self.book)
        self.way: OutputMethod | None = settings.way  # the first that has worked, unless one is set
        self._patience = ServerRetry(settings.patience, settings.max_concurrency, tell)

    def chat(self, role: Role, way: OutputMethod | None = None) -> LlmChat:
        wanted = self.settings.model_copy(update={"way": way or self.way})
        return LlmChat(wanted, role, self.budget, self._patience)


def settings_of(server: Mapping[str, object], changes: Sequence[str]) -> Llm:
    """The settings of a server, changed as `key=value` says, with the value read as YAML. Raises BadInput."""
    values = dict(server)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise BadInput(f"--set '{change}': write it as key=value, such as temperature=null")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BadInput(f"--set '{change}': {' '.join(str(error).split())}") from None
    try:
        return Llm.model_validate(values)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, keys))}: {said}" for keys, said in sentences(error).items())
        raise BadInput(f"--set: {told}") from None


def check_llm(settings: Llm) -> int:
    """Print a line a check, what it cost, and a verdict. 0 if planner, editor and judge all work, else 1."""
    console = Console(highlight=False)
    console.print(Text(f"{settings.model} at {settings.base_url or 'api.openai.com'}", style="bold"))
    slow, bench, good = 0, Bench(settings, lambda text: console.print(Text(text, style="italic"))), dict[str, bool]()
    for what, check in checks(bench):
        finding = _made(what, check)
        good[what] = finding.good
        console.print(_line(finding), soft_wrap=True)
        if what == "answers" and not finding.good:
            console.print("Nothing more was asked.")
            return 1
        slow += LATE in finding.said
        if slow == MOST_LATE:
            console.print(f"Too slow for calls of {settings.timeout:g} s (--timeout); nothing more was asked.")
            return 1
    if bench.way not in (None, "tools", settings.way):
        console.print(f"llm.way: {bench.way} saves trying the ways before it.")
    console.print(f"{_total(bench)}.")
    return _verdict(console, {role: good[role] for role in get_args(Role)})


def _line(finding: Finding) -> Text:
    """One way of asking for a choice is enough, so a way that is not taken is no failure."""
    lacking = ("–", "dim") if finding.what in ABOUT_WAYS.values() else ("failed", "red")
    mark, style = ("ok", "green") if finding.good else lacking
    told = f"{finding.what:<36}{wording.printable(finding.said)}  ({wording.duration(finding.seconds)})"
    return Text.assemble((f"{mark:<8}", style), told)


def checks(bench: Bench) -> Iterator[tuple[str, Callable[[], tuple[bool, str]]]]:
    """Name and deed of each check, in order. A deed says whether it went well, and what was seen."""
    first = bench.chat("planner")
    yield "answers", lambda: (True, _quoted(first.complete("Be brief.", "Say hello.")))
    yield "usage", partial(_usage, bench)
    yield "settings", lambda: (True, _taken(first))
    for way, about in ABOUT_WAYS.items():
        yield about, partial(_way, bench, way)
    begun = len(bench.book)
    yield "planner", partial(_plans, bench)
    yield "editor", partial(_edits, bench)
    yield "judge", partial(_judges, bench)
    yield "pace", partial(_pace, bench, begun)


def _made(what: str, check: Callable[[], tuple[bool, str]]) -> Finding:
    began = time.monotonic()
    try:
        good, said = check()
    except LlmUnavailable as error:
        good, said = False, str(error)
    return Finding(what, good, said, time.monotonic() - began)


def _usage(bench: Bench) -> tuple[bool, str]:
    """Of the call before."""
    last = bench.book[-1]
    if last.fault:
        return False, f"{last.fault}: every call is charged the most it can cost"
    return True, f"{last.usage.input_tokens} tokens read, {last.usage.output_tokens} written"


def _taken(chat: LlmChat) -> str:
    """What the answers before needed. A setting that is refused costs one more request in every role of every run."""
    refused = ", ".join(f"{name} (llm.{name}: null)" for name in chat.refused)
    return f"refused, and left out since: {refused}" if refused else "all taken"


def _way(bench: Bench, way: OutputMethod) -> tuple[bool, str]:
    chat = bench.chat("planner", way)
    chosen = chat.call_tool("You choose a lever.", "Content is lacking. Choose.", TOOLS)
    bench.way = bench.way or chat.method
    worked = chat.method == way
    return worked, f"it {'chose' if worked else 'called no tool, and wrote'} {tool_name(type(chosen))}"


def _plans(bench: Bench) -> tuple[bool, str]:
    """Whether it chooses edits where only style is lacking, and training where only content is."""
    files = {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
    config = TaskConfig.model_validate({"name": "capitals", "data": files, "content": [{"kind": "contains"}]})
    planner = LlmPlanner(bench.chat("planner"), config)
    said, good = [], True
    cases: list[tuple[Need, Signal, str]] = [("style", NO_STYLE, "edit_prompt"), ("content", NO_CONTENT, "train_lora")]
    for need, signal, wanted in cases:
        lacking = tuple(ExampleDiagnosis(example=f"validation:{line}", need=need) for line in range(1, 10))
        decision = planner.decide(Briefing(signal, Diagnosis(failing=9, total=10, examples=lacking)))
        if decision.by != "planner":
            return False, decision.reason.rpartition("The planner was not used: ")[2].rstrip(")")
        good &= decision.move.action == wanted
        said.append(f"where {need} is lacking, {decision.move.action}: {_quoted(decision.reason, 160)}")
    return good, "; ".join(said)


def _edits(bench: Bench) -> tuple[bool, str]:
    scores = tuple(SCORERS.score(row, f"It is {row.answer}.") for row in ROWS.values())
    failing = Evaluation(candidate=Candidate(prompt=PROMPT.id), split="train", scores=scores)
    editor = TextGradEditor(bench.chat("editor"), SCORERS, Editing(), ROWS.__getitem__, lambda *_: None)
    proposed = editor.propose(PROMPT, failing, list(ROWS.values()), EditPrompt(parts=("system",)), seed=0)
    if not proposed.edits:
        return False, " ".join(proposed.remarks)
    helpful = next((edit.prompt for edit in proposed.edits if helps(edit.prompt)), None)
    shown = helpful or proposed.edits[0].prompt
    lack = "" if helpful else f", which does not ask for {MARK} or gives answers away"
    return helpful is not None, f"the system text became {_quoted(shown.system, 200)}{lack}"


def helps(prompt: Prompt) -> bool:
    """Whether a model that does just what it is told would score better, and learn no answer from the prompt."""
    given_away = any(row.answer.lower() in prompt.system.lower() for row in ROWS.values())
    return not given_away and _literal(prompt) > _literal(PROMPT)


def _literal(prompt: Prompt) -> float:
    """The reward of a model that knows the answers and begins them as the system text says, if it says so."""
    opening = f"{MARK} " if MARK in prompt.system else "It is "
    return fmean(SCORERS.score(row, f"{opening}{row.answer}").reward for row in ROWS.values())


def _pace(bench: Bench, begun: int) -> tuple[bool, str]:
    """Measures how many calls at once are worth it; the longest call counts from `begun` in the book."""
    chat = bench.chat("planner")
    chat.complete("Be brief.", "Say hello.")  # opens the connection
    rates = measured(lambda place: chat.complete(f"You are number {place}.", "Say hello in one word."), chat.width)
    width, longest = fitting_width(rates), max(call.seconds for call in bench.book[begun:])
    told = ", ".join(f"{at_once}: {rate:.2g}" for at_once, rate in rates.items())
    return True, (
        f"llm.timeout: {fitting_timeout(longest)} and llm.max_concurrency: {width} fit (the longest call took "
        f"{wording.duration(longest)}; answers a second by calls at once: {told})"
    )


def _judges(bench: Bench) -> tuple[bool, str]:
    rubric = "The answer names the right capital, in one short sentence."
    judge = LlmJudge(Judge(kind="judge", rubric=rubric), bench.chat("judge"))
    [row, *_] = ROWS.values()
    right, wrong = judge.rate([(row, "The capital is Paris."), (row, "I like cheese and long walks by the sea.")])
    return right.score > wrong.score, f"a right answer {right.score:.2f}, a wrong one {wrong.score:.2f}"


def _total(bench: Bench) -> str:
    total, settled = sum(bench.budget.usage.values(), Usage()), {call.number for call in bench.book if call.settled}
    most = "at most " if {call.number for call in bench.book} - settled else ""
    tokens = f"{most}{total.input_tokens:,} tokens read, {total.output_tokens:,} written"
    return f"{wording.plural(total.calls, 'call')}, {tokens}" + (f", ${total.usd:.4f}" if total.usd else "")


def _verdict(console: Console, good: dict[Role, bool]) -> int:
    able = [role for role, works in good.items() if works]
    if able:
        console.print(f"Good enough as {', '.join(able)}.", style="bold green")
    for role in (role for role, works in good.items() if not works):
        console.print(f"Not good enough as {role} ({WITHOUT[role]}).", style="bold red")
    return 0 if len(able) == len(good) else 1


def _quoted(text: str, most: int = 80) -> str:
    text = " ".join(text.split())
    return f'"{text}"' if len(text) <= most else f'"{text[:most]}…"'
