"""`nesylora check-llm`: is this server good enough? Ask it as planner, editor and judge, and print what worked."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from agent.config.llm import Llm, OutputMethod
from agent.config.prompt import Editing
from agent.config.scorers import Contains, Judge, StartsWith
from agent.config.task import TaskConfig
from agent.errors import BadInput, LlmUnavailable
from agent.policy.llm_planner import LlmPlanner
from agent.policy.planner_tools import ACTION_TOOLS
from agent.protocols import Briefing, Replies
from agent.records.actions import EditPrompt
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate, Example, Prompt
from agent.records.rounds import Role, Usage
from agent.records.signal import Diagnosis, ExampleDiagnosis, LeverSignal, Need, Signal
from eval.scorers.judge import LlmJudge
from eval.scoring import TaskScorers
from eval.tasks.config_errors import sentences
from memory.replies import ReplyStore
from tools.editing.textgrad_editor import TextGradEditor
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.client import LlmChat
from tools.llm.retry import ServerRetry
from tools.llm.schema import tool_name
from ui import wording
from ui.commands.pace import fitting_timeout, fitting_width, measure_rates
from ui.commands.reflection import reflect_on
from ui.commands.situations import plan_on_all

METHODS: dict[OutputMethod, str] = {
    "tools": "tool calling: one of several tools",
    "one tool": "tool calling: one tool by its name",
    "schema": "structured output: JSON schema",
    "object": "structured output: JSON object",
    "text": "JSON, asked for in plain words",
}
SITUATIONS = 12  # planned in, unless more or fewer are asked for
LATE, MOST_LATE = "did not answer in time", 3  # two output methods may generate without end
WITHOUT: dict[Role, str] = {
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


class CheckedServer:
    """The server that is checked: chats with it in every role, on one budget.

    Args:
        notify: takes a sentence on what is waited for, or done.
        replies: answers on disk, for what a check that was stopped need not ask again.
    """

    def __init__(self, settings: Llm, notify: Callable[[str], None], replies: Replies | None = None) -> None:
        self.settings = settings
        self.notify = notify
        self.replies = replies
        self.calls = UnsavedCallLog()
        self.budget = LlmBudget(self.calls)
        self.method: OutputMethod | None = settings.way  # the first that worked, unless the settings name one
        self._retry = ServerRetry(settings.patience, settings.max_concurrency, notify)

    def chat(self, role: Role, method: OutputMethod | None = None, replies: Replies | None = None) -> LlmChat:
        settings = self.settings.model_copy(update={"way": method or self.method})
        return LlmChat(settings, role, self.budget, self._retry, replies)


def settings_of(server: Mapping[str, object], changes: Sequence[str]) -> Llm:
    """The settings of a server, changed by each `key=value`, whose value is read as YAML. Raises BadInput."""
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
        faults = "; ".join(f"{'.'.join(map(str, keys))}: {fault}" for keys, fault in sentences(error).items())
        raise BadInput(f"--set: {faults}") from None


def check_llm(settings: Llm, situations: int = SITUATIONS, runs: Path = Path("runs")) -> int:
    """Print a line for each check, what they cost, and a verdict. 0 if planner, editor and judge all work, else 1.

    Args:
        situations: how many recorded ones to plan in; 0: none.
        runs: their plans are kept beside the runs, so that a check that was stopped goes on.
    """
    console = Console(highlight=False)
    console.print(Text(f"{settings.model} at {settings.base_url or 'api.openai.com'}", style="bold"))
    replies = ReplyStore(runs / "check-llm.sqlite") if situations and settings.cache else None
    server = CheckedServer(settings, lambda text: console.print(Text(wording.printable(text), style="italic")), replies)
    slow, good = 0, dict[str, bool]()
    for what, check in checks(server, situations):
        began = time.monotonic()
        try:
            good[what], message = check()
        except LlmUnavailable as error:
            good[what], message = False, str(error)
        # One output method is enough, so a method that the server does not support is no failure.
        lacking = ("–", "dim") if what in METHODS.values() else ("failed", "red")
        mark, style = ("ok", "green") if good[what] else lacking
        text = f"{what:<36}{wording.printable(message)}  ({wording.duration(time.monotonic() - began)})"
        console.print(Text.assemble((f"{mark:<8}", style), text), soft_wrap=True)
        if what == "answers" and not good[what]:
            console.print("Nothing more was asked.")
            return 1
        slow += LATE in message
        if slow == MOST_LATE:
            console.print(f"Too slow for calls of {settings.timeout:g} s (--timeout); nothing more was asked.")
            return 1
    if server.method not in (None, "tools", settings.way):
        console.print(f"llm.way: {server.method} saves trying the ways before it.")
    total, settled = sum(server.budget.usage.values(), Usage()), {call.number for call in server.calls if call.settled}
    most = "at most " if {call.number for call in server.calls} - settled else ""
    money = f", ${total.usd:.4f}" if total.usd else ""
    tokens = f"{most}{total.input_tokens:,} tokens read, {total.output_tokens:,} written"
    console.print(f"{wording.plural(total.calls, 'call')}, {tokens}{money}.")
    good["planner"] &= good.get("situations", True)
    return _verdict(console, {role: good[role] for role in WITHOUT})


def checks(server: CheckedServer, situations: int) -> Iterator[tuple[str, Callable[[], tuple[bool, str]]]]:
    """Name and function of each check, in order. The function returns whether it went well, and what was found."""
    first = server.chat("planner")
    yield "answers", lambda: (True, _quoted(first.complete("Be brief.", "Say hello.")))
    yield "usage", partial(_check_usage, server)
    yield "settings", lambda: (True, _check_settings(first))
    for method, about in METHODS.items():
        yield about, partial(_check_method, server, method)
    begun = len(server.calls)
    yield "planner", partial(_check_planner, server)
    if situations:
        yield "situations", partial(_check_situations, server, situations)
    yield "editor", partial(_check_editor, server)
    if find_spec("gepa"):
        yield "reflection (edit.editor: gepa)", partial(_check_reflection, server)
    yield "judge", partial(_check_judge, server)
    yield "pace", partial(_check_pace, server, begun)


def _check_usage(server: CheckedServer) -> tuple[bool, str]:
    """Of the last call."""
    last = server.calls[-1]
    if last.fault:
        return False, f"{last.fault}: every call is charged the most it can cost"
    return True, f"{last.usage.input_tokens} tokens read, {last.usage.output_tokens} written"


def _check_settings(chat: LlmChat) -> str:
    """Which settings the server refused. Each one costs another request in every role of every run."""
    refused = ", ".join(f"{name} (llm.{name}: null)" for name in chat.refused)
    return f"refused, and left out since: {refused}" if refused else "all taken"


def _check_method(server: CheckedServer, method: OutputMethod) -> tuple[bool, str]:
    chat = server.chat("planner", method)
    chosen = chat.call_tool("You choose a lever.", "Content is lacking. Choose.", ACTION_TOOLS)
    server.method = server.method or chat.method
    worked = chat.method == method
    return worked, f"it {'chose' if worked else 'called no tool, and wrote'} {tool_name(type(chosen))}"


def _check_planner(server: CheckedServer) -> tuple[bool, str]:
    """Whether it chooses an edit where only style is lacking, and training where only content is."""
    files = {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
    config = TaskConfig.model_validate({"name": "capitals", "data": files, "content": [{"kind": "contains"}]})
    planner = LlmPlanner(server.chat("planner"), config)
    reasons, good = [], True
    cases: list[tuple[Need, Signal, str]] = [("style", NO_STYLE, "edit_prompt"), ("content", NO_CONTENT, "train_lora")]
    for need, signal, wanted in cases:
        lacking = tuple(ExampleDiagnosis(example=f"validation:{line}", need=need) for line in range(1, 10))
        decision = planner.decide(Briefing(signal, Diagnosis(failing=9, total=10, examples=lacking)))
        if decision.by != "planner":
            return False, decision.planner_fault
        good &= decision.move.action == wanted
        reasons.append(f"where {need} is lacking, {decision.move.action}: {_quoted(decision.reason, 160)}")
    return good, "; ".join(reasons)


def _check_situations(server: CheckedServer, most: int) -> tuple[bool, str]:
    """Whether more of its plans are good than chance would bring."""
    llm = server.settings.model_copy(update={"way": server.method})
    score = plan_on_all(most, server.chat("planner", replies=server.replies), llm, server.notify)
    kept = server.budget.usage["planner"].cached
    earlier = f"; {wording.plural(kept, 'answer')} kept from an earlier check (--set cache=false: all are asked anew)"
    return score.beats_chance, f"{score}{earlier if kept else ''}"


def _check_editor(server: CheckedServer) -> tuple[bool, str]:
    scores = tuple(SCORERS.score(row, f"It is {row.answer}.") for row in ROWS.values())
    failing = Evaluation(candidate=Candidate(prompt=PROMPT.id), split="train", scores=scores)
    editor = TextGradEditor(server.chat("editor"), SCORERS, Editing(), ROWS.__getitem__, lambda *_: None)
    proposed = editor.propose(PROMPT, failing, list(ROWS.values()), EditPrompt(parts=("system",)), seed=0)
    if not proposed.edits:
        return False, " ".join(proposed.remarks)
    helpful = next((edit.prompt for edit in proposed.edits if helps(edit.prompt)), None)
    shown = helpful or proposed.edits[0].prompt
    lack = "" if helpful else f", which does not ask for {MARK} or gives answers away"
    return helpful is not None, f"the system text became {_quoted(shown.system, 200)}{lack}"


def _check_reflection(server: CheckedServer) -> tuple[bool, str]:
    return reflect_on(PROMPT, ROWS, SCORERS, _followed, helps, server.chat("editor"))


def helps(prompt: Prompt) -> bool:
    """Whether a model that follows the prompt exactly would score better, and would learn no answer from it."""
    given_away = any(row.answer.lower() in prompt.system.lower() for row in ROWS.values())
    return not given_away and _literal(prompt) > _literal(PROMPT)


def _literal(prompt: Prompt) -> float:
    """The reward of a model that knows the answers, and begins them with the mark if the system text names it."""
    return fmean(_followed(prompt, row).reward for row in ROWS.values())


def _followed(prompt: Prompt, row: Example) -> ExampleScore:
    opening = f"{MARK} " if MARK in prompt.system else "It is "
    return SCORERS.score(row, f"{opening}{row.answer}")


def _check_pace(server: CheckedServer, begun: int) -> tuple[bool, str]:
    """Measure how many calls at once are worth it. The longest call from number `begun` on sets the timeout."""
    chat = server.chat("planner")
    chat.complete("Be brief.", "Say hello.")  # opens the connection
    rates = measure_rates(lambda place: chat.complete(f"You are number {place}.", "Say hello in one word."), chat.width)
    width, longest = fitting_width(rates), max(call.seconds for call in server.calls[begun:])
    by_width = ", ".join(f"{at_once}: {rate:.2g}" for at_once, rate in rates.items())
    return True, (
        f"llm.timeout: {fitting_timeout(longest)} and llm.max_concurrency: {width} fit (the longest call took "
        f"{wording.duration(longest)}; answers a second by calls at once: {by_width})"
    )


def _check_judge(server: CheckedServer) -> tuple[bool, str]:
    rubric = "The answer names the right capital, in one short sentence."
    judge = LlmJudge(Judge(kind="judge", rubric=rubric), server.chat("judge"))
    [row, *_] = ROWS.values()
    right, wrong = judge.rate([(row, "The capital is Paris."), (row, "I like cheese and long walks by the sea.")])
    return right.score > wrong.score, f"a right answer {right.score:.2f}, a wrong one {wrong.score:.2f}"


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
