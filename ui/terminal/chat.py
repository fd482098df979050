"""The terminal chat: the same graph, stopped before every move, with the user at the switch."""

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape

from agent.errors import BadInput
from agent.policy.rules import Rules
from agent.records.actions import Decision
from agent.records.examples import Example, Prompt
from agent.records.rounds import Round
from graphs.session import Question, Session, open_session
from memory.run.folder import RunFolder
from ui import wording
from ui.report.diff import unified
from ui.report.write import write_report
from ui.terminal.live import LiveView

HELP = """\
/plan         what would be done next, why, and what it costs
/approve      do it, and show the next plan
/reject       not that lever: plan again without it
/edit         rewrite the prompt next, whatever the plan says
/train        train the weights next, whatever the plan says
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
        talk.plan("")
        while talk.turn():
            pass
    return 0


class Talk:
    """One conversation about one run."""

    def __init__(self, session: Session, console: Console) -> None:
        self._session = session
        self._folder = session.context.folder
        self._console = console
        self._commands: dict[str, Callable[[str], None]] = {
            "/plan": self.plan,
            "/approve": lambda _: self._answer({"approve": True}),
            "/reject": lambda _: self._reject(),
            "/edit": lambda _: self._answer({"instead": {"action": "edit_prompt"}}),
            "/train": lambda _: self._train(),
            "/run": self._run,
            "/why": self._why,
            "/diff": self._diff,
            "/rollback": self._rollback,
            "/try": self._try,
            "/finish": lambda _: self._answer({"instead": {"action": "stop"}}),
            "/help": lambda _: self.say(escape(HELP)),
        }

    def say(self, text: str) -> None:
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

    def plan(self, _: str) -> None:
        """Show the question the run waits with."""
        question = self._session.question
        if question is None:
            self.say("The run has finished. /try, /why and /diff still answer; /quit leaves.")
            return
        if question.fault:
            self.say(f"That cannot be done: {escape(question.fault)}")
        move = question.decision.move
        details = {key: value for key, value in move.model_dump().items() if key != "action"}
        self.say(f"[bold]Round {question.number}: {move.action}[/]  {escape(json.dumps(details)) if details else ''}")
        self.say(f"  why:  {escape(question.decision.reason)}")
        self._beside_rules(question.decision)
        self.say(f"  cost: {escape(question.cost)}")
        self.say("  /approve, /reject, or another command (/help)")

    def _answer(self, answer: dict[str, Any]) -> None:
        self._session.go(answer)
        self.plan("")

    def _reject(self) -> None:
        question = self._session.question
        if question and question.decision.move.action == "stop":
            raise BadInput("Nothing else is proposed; /edit and /train ask for a move of your own, /quit leaves.")
        self._answer({"approve": False})

    def _train(self) -> None:
        rules = Rules(self._session.context.spec.config)
        move = rules.training(self._session.state["signal"], self._folder.rounds())
        self._answer({"instead": move.model_dump(mode="json")})

    def _run(self, rest: str) -> None:
        for _ in range(_number(rest or "1", "/run")):
            question = self._session.question
            if question is None or not self._agreed(question):
                break
            self._session.go({"approve": True})
        self.plan("")

    def _agreed(self, question: Question) -> bool:
        """Edits are cheap and go through; what is costly or final asks first."""
        if question.decision.move.action == "edit_prompt":
            return True
        self.plan("")
        return self._console.input("  do it? (y/n) ").strip().lower() in ("y", "yes")

    def _why(self, _: str) -> None:
        last = self._last()
        self.say(f"Round {last.number}, {last.decision.move.action}, decided by {last.decision.by}.")
        self.say(f"  {escape(last.decision.reason)}")
        self._beside_rules(last.decision)
        for name, value in last.decision.numbers.items():
            self.say(f"  {name:<24}{value:10.3f}")
        self.say(f"  {'kept' if last.verdict.kept else 'taken back'}: {escape(last.verdict.reason)}")

    def _beside_rules(self, decision: Decision) -> None:
        if decision.rules_would:
            told = wording.beside_rules(decision)
            what = "the rules" if decision.by in ("planner", "learned") else "planned was"
            self.say(f"  {what}{f' ({told})' if told else ''}: {escape(wording.printable(decision.rules_would))}")

    def _diff(self, _: str) -> None:
        seed = self._session.context.spec.config.prompt.prompt()
        colours = {"+": "green", "-": "red"}
        for line in unified(seed, self._best_prompt()).splitlines() or ["The best prompt is the seed prompt."]:
            self.say(f"[{colours.get(line[:1], 'dim')}]{escape(line)}[/]")

    def _rollback(self, rest: str) -> None:
        number = _number(rest, "/rollback")
        if number > len(self._folder.rounds()):
            raise BadInput(f"There have been {len(self._folder.rounds())} rounds; /rollback takes 0 to that.")
        self._answer({"instead": {"action": "rollback", "to_round": number}})

    def _try(self, question: str) -> None:
        if not question:
            raise BadInput("/try takes the question to ask, as in: /try Who is the mayor?")
        context = self._session.context
        example = Example(name="chat:1", question=question, answer="")
        tokens = context.spec.config.generation.max_new_tokens
        adapter = self._session.best.adapter
        [answer], _ = context.model.generate(self._best_prompt(), [example], adapter=adapter, max_new_tokens=tokens)
        if answer is None:
            raise BadInput(f"The model's window has no room for this question and generation.max_new_tokens: {tokens}.")
        self.say(escape(answer))

    def _best_prompt(self) -> Prompt:
        return self._folder.prompt(self._session.best.prompt)

    def _last(self) -> Round:
        rounds = self._folder.rounds()
        if not rounds:
            raise BadInput("No round has been done yet; /plan shows the first.")
        return rounds[-1]


def _number(text: str, command: str) -> int:
    if not text.isdecimal():
        raise BadInput(f"{command} takes a number, as in: {command} 2")
    return int(text)
