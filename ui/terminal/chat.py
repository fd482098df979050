"""The terminal chat: the same graph, stopped before every action, with the user at the switch."""

import json
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from agent.errors import BadInput
from agent.records.actions import Decision
from graphs.approval import Question
from graphs.conversation import Conversation
from graphs.session import Session, open_session
from memory.run.folder import RunFolder
from ui import wording
from ui.decision_wording import alternative, beside_rules, decider, doubts, inquiry, reason
from ui.report.diff import unified
from ui.report.write import write_report
from ui.terminal.live import LiveView

HELP = """\
/plan         what would be done next, why, and what it costs
/approve      do it, and show the next plan
/reject WHY   not that lever: plan again without it
/edit         rewrite the prompt next, whatever the plan says
/train        train the weights next; settings as in: /train epochs=4 rows=both
/run N        up to N rounds; edits go through, training asks first
/why          the reasons and numbers behind the last round
/diff         what the best prompt says that the seed prompt did not
/rollback N   back to the pair after round N (0: the baseline)
/try TEXT     ask the best pair something
/finish       end here: open the test rows and write the report
/quit         leave; go on later with: nesylora chat RUN"""


def chat(folder: RunFolder) -> int:
    """Talk until the run is finished or the user leaves. Commands come from standard input, one a line."""
    with LiveView() as view, open_session(folder, supervised=True, listener=view, report=write_report) as session:
        talk = Talk(session, view.console)
        talk.say(f"Run [bold]{escape(folder.name)}[/]. Type /help for what you can do.")
        session.go()
        talk.plan()
        while talk.turn():
            pass
    return 0


class Talk:
    """One conversation about one run: reads commands, and puts what they answer into words."""

    def __init__(self, session: Session, console: Console) -> None:
        self._conversation = Conversation(session)
        self._console = console
        conversation = self._conversation
        self._commands: dict[str, Callable[[str], None]] = {
            "/plan": self.plan,
            "/approve": _alone("/approve", lambda: self._ask(conversation.approve())),
            "/reject": lambda why: self._ask(conversation.reject(why)),
            "/edit": lambda rest: self._ask(conversation.edit(**_settings(rest, "/edit parts=system,demos"))),
            "/train": lambda rest: self._ask(conversation.train(**_settings(rest, "/train epochs=4"))),
            "/run": self._run,
            "/why": _alone("/why", self._why),
            "/diff": _alone("/diff", self._diff),
            "/rollback": lambda rest: self._ask(conversation.rollback(_number(rest, "/rollback"))),
            "/try": lambda question: self.say(escape(conversation.try_prompt(question).answer)),
            "/finish": _alone("/finish", lambda: self._ask(conversation.finish())),
            "/help": lambda _: self.say(escape(HELP)),
        }

    def say(self, text: str) -> None:
        """Print a text of rich's markup."""
        self._console.print(text, highlight=False)

    def turn(self) -> bool:
        """Read and do one command; False when the user leaves."""
        try:
            line = self._console.input("[bold]> [/]").strip()
        except EOFError:
            return False
        if line in ("/quit", "/exit"):
            return False
        name, _, rest = line.partition(" ")
        if not name:
            return True
        command = self._commands.get(name)
        if command is None:
            self.say(f"There is no command {escape(name)}; /help lists them, and /try TEXT asks the model.")
            return True
        try:
            command(rest.strip())
        except BadInput as error:
            self.say(escape(str(error)))
        except EOFError:  # the input ended at a question of ours
            return False
        return True

    def plan(self, _: str = "") -> None:
        """Show the question that the run waits with."""
        self._ask(self._conversation.question)

    def _ask(self, question: Question | None) -> None:
        if question is None:
            self.say("The run has finished. /try, /why and /diff still answer; /quit leaves.")
            return
        if question.fault:
            self.say(f"That cannot be done: {escape(question.fault)}")
        action = question.decision.move
        details = {key: value for key, value in action.model_dump().items() if key != "action"}
        self.say(f"[bold]Round {question.number}: {action.action}[/]  {escape(json.dumps(details)) if details else ''}")
        self.say(f"  why:  {escape(reason(question.decision))}")
        self._decided(question.decision)
        self.say(f"  cost: {escape(wording.action_cost(question.cost))}")
        self.say("  /approve, /reject, or another command (/help)")

    def _run(self, rest: str) -> None:
        for _ in range(_number(rest or "1", "/run")):
            question = self._conversation.question
            if question is None or not self._agreed(question):
                break
            self._conversation.approve()
        self.plan()

    def _agreed(self, question: Question) -> bool:
        """Edits are cheap and go through; what is costly or final asks first."""
        if question.decision.move.action == "edit_prompt":
            return True
        self._ask(question)
        return self._console.input("  do it? (y/n) ").strip().lower() in ("y", "yes")

    def _why(self) -> None:
        last = self._conversation.why()
        self.say(f"Round {last.number}, {last.decision.move.action}, decided by {escape(decider(last.decision))}.")
        self.say(f"  {escape(reason(last.decision))}")
        self._decided(last.decision)
        for name, value in last.decision.numbers.items():
            self.say(f"  {name:<24}{value:10.3f}")
        self.say(f"  {wording.kept(last.verdict)}: {escape(last.verdict.reason)}")

    def _decided(self, decision: Decision) -> None:
        """What the planner looked at before it decided, and what was not done instead."""
        for looked in decision.inquiries:
            self.say(f"  looked: {escape(wording.printable(inquiry(looked)))}")
        for doubt in doubts(decision):
            self.say(f"  {escape(wording.printable(doubt))}")
        if would := alternative(decision):
            same = beside_rules(decision)
            who = "the rules" if decision.by in ("planner", "learned") else "planned was"
            self.say(f"  {who}{f' ({same})' if same else ''}: {escape(wording.printable(would))}")

    def _diff(self) -> None:
        change, colours = self._conversation.diff(), {"+": "green", "-": "red"}
        for line in unified(change.seed, change.best).splitlines() or ["The best prompt is the seed prompt."]:
            self.say(f"[{colours.get(line[:1], 'dim')}]{escape(line)}[/]")


def _alone(name: str, command: Callable[[], None]) -> Callable[[str], None]:
    """A command that takes nothing after its name, so that no word of the user's is thrown away."""

    def run(rest: str) -> None:
        if rest:
            raise BadInput(f"{name} takes nothing after it, and nothing was done.")
        command()

    return run


def _settings(text: str, example: str) -> dict[str, object]:
    """`name=value` pairs; a value with commas is a list."""
    pairs = [part.partition("=") for part in text.split()]
    if not all(name and equals and value for name, equals, value in pairs):
        raise BadInput(f"Settings are written as in: {example}. Nothing was done.")
    return {name: value.split(",") if "," in value or name == "parts" else value for name, _, value in pairs}


def _number(text: str, command: str) -> int:
    if not text.isdecimal():
        raise BadInput(f"{command} takes a number, as in: {command} 2")
    return int(text)
