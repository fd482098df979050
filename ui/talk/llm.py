"""Plain language: what no phrase says goes to the external LLM, and what it chooses is done by the same commands."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from agent.config.llm import Llm
from agent.errors import BadInput, LlmUnavailable
from agent.records.actions import Stop, TrainLora
from agent.records.limits import Limits
from agent.records.rounds import Round, Usage
from graphs.approval import APPROVE, Question
from graphs.conversation import commands
from graphs.conversation.agent import ChatAgent, Event, chat_agent
from memory.run.folder import RunFolder
from tools.llm.budget import LlmBudget
from tools.llm.client import LlmChat
from tools.llm.retry import ServerRetry
from ui import wording
from ui.talk import answers, plans
from ui.talk.asking import Asking
from ui.talk.lines import Line, line

SHOWN = ("/try", "/prompt", "/diff")  # looks whose result is what the user wants to see
LAST_ROUNDS = 3
REJECT: dict[str, object] = {"decisions": [{"type": "reject"}]}


class LlmDesk:
    """Satisfies `graphs.conversation.agent.Desk` with a conversation: what the LLM does, the user sees."""

    def __init__(self) -> None:
        self.talk: Asking | None = None

    def facts(self) -> str:
        """Where the run stands, the last rounds, and the plan that waits for an answer."""
        talk = self._talk
        now = talk.run.status()
        lines = [said.text for said in answers.status(now)]
        lines += [summary(row) for row in talk.folder.rounds()[-LAST_ROUNDS:]]
        if now.question:
            lines += ["Planned now, and waiting for their yes or no:"]
            lines += [said.text for said in list(plans.plan(now.question))[:-1]]
        return "\n".join(lines)

    def perform(self, command: str) -> str:
        seen, talk = list[Line](), self._talk
        shows = commands.parsed(command)[0].acts or command.startswith(SHOWN)
        for said in talk.do(command):
            seen.append(said)
            if shows:
                talk.tell(said)
        return "\n".join(said.text for said in seen)

    def carried_out(self) -> list[str]:
        names = {"train_lora": "/train", "edit_prompt": "/edit", "rollback": "/rollback", "stop": "/finish"}
        rounds = self._talk.folder.rounds()
        return ["/stop" if row.trial.cancelled else names[row.decision.move.action] for row in rounds]

    def weigh(self, command: str) -> str:
        name, _, rest = command.partition(" ")
        now = self._talk.run.status()
        question = now.question
        if name == "/finish":
            return f"That will {plans.what(Stop())}."
        if name == "/set" and now.condition == "finished":
            return f"Limits to be set: {rest}. That reopens the run; its test rows then count as seen."
        if name == "/set" and any(limit in rest for limit in ("rounds=", "minutes=", "usd=")):
            return f"Limits to be set: {rest}."
        if name == "/run" and self._talk.by_worker:
            return f"Rounds to be done without asking, trainings too: {rest or 1}."
        if name == "/train":
            return self._training(commands.settings(rest, "/train epochs=4"), question)
        if name == "/approve" and question and isinstance(question.decision.move, TrainLora):
            return f"To be done: {plans.proposal(question.decision.move, question)}."
        return ""

    def _training(self, given: Mapping[str, object], question: Question | None) -> str:
        """A training in place of the plan; where none waits, in place of the next one, as the rules have it."""
        if question is None:
            named = ", ".join(f"{name} {value}" for name, value in given.items())
            return f"To be done in place of the next plan: train the weights{f' ({named})' if named else ''}."
        return f"To be done: {plans.proposal(question.completed(TrainLora.model_validate(given)), question)}."

    @property
    def _talk(self) -> Asking:
        assert self.talk is not None, "the conversation knows its LLM before it hears anything"
        return self.talk


class Listener:
    """Satisfies `ui.talk.asking.Listening` with the agent, for one conversation."""

    def __init__(self, agent: ChatAgent, desk: LlmDesk, budget: LlmBudget) -> None:
        self._agent = agent
        self._desk = desk
        self._budget = budget

    def hear(self, text: str, talk: Asking) -> None:
        """What was asked before is asked again after an answer, unless something else was done.

        Raises:
            LlmUnavailable: it did not answer, or nothing that can be used.
        """
        self._desk.talk = talk
        now = talk.run.status().limits  # somebody else may have extended the run meanwhile
        self._budget.extend(now.usd, now.llm_tokens)
        before, open_turn = self._spent, self._agent.open_turn
        try:
            asked = self._show(self._agent.hear(text), talk)
        except LlmUnavailable:
            if open_turn and talk.llm_asks:
                list(self._agent.ask_again(open_turn))
            raise
        finally:
            if (used := self._spent - before).usd:
                talk.tell(
                    line(f"  ({wording.plural(used.calls, 'call')} to the LLM, {wording.money(used.usd)})", "dim")
                )
        if open_turn and talk.llm_asks and not self._agent.question:
            asked = self._show(self._agent.ask_again(open_turn), talk)
        talk.tell(*asked)

    @property
    def _spent(self) -> Usage:
        return self._budget.usage.get("chat", Usage())

    def resume(self, talk: Asking) -> None:
        """Ask again what was open when the user left."""
        self._desk.talk = talk
        if asked := self._agent.question:
            talk.tell(talk.ask_for_llm(asked))

    def decide(self, asked: str, yes: bool, talk: Asking) -> None:
        """Raises BadInput: what it asked does not stand any more."""
        self._desk.talk = talk
        if self._agent.question != asked:
            raise BadInput("That has been answered elsewhere, or asked anew; nothing was done.")
        talk.tell(*self._show(self._agent.decide(APPROVE if yes else REJECT), talk))

    def drop(self) -> None:
        """Turn down what stands in the thread, without a word."""
        if self._agent.question:
            list(self._agent.decide(REJECT))

    def _show(self, events: Iterator[Event], talk: Asking) -> list[Line]:
        """Show what happens. Returns the question at its end, which is to be what the user sees last."""
        asked = list[Line]()
        for event in events:
            match event.kind:
                case "command":
                    talk.tell(line(f"  → {event.text}", "dim"))
                case "left out":
                    talk.tell(line(f"  (left out of the LLM's answer: {event.text})", "dim"))
                case "question":
                    asked = [talk.ask_for_llm(event.text)]
                case "answer":
                    talk.tell(*map(line, event.text.splitlines()))
        return asked


def summary(row: Round) -> str:
    """A round in a line, for an LLM."""
    change = f"reward {wording.number(row.verdict.before)} → {wording.number(row.verdict.after)}"
    return f"round {row.number}: {plans.what(row.decision.move)}; {change}, {wording.kept(row)}"


@contextmanager
def listening(folder: RunFolder, settings: Llm, limits: Limits, notify: Callable[[str], None]) -> Iterator[Listener]:
    """The LLM of a conversation. Its calls are in the run folder, and count against the run's budget.

    Args:
        limits: the run's, of which money and LLM tokens count here.
        notify: takes a sentence on what is waited for.

    Raises:
        Busy: another process talks with an LLM about this run.
    """
    budget = LlmBudget(folder.chat_calls, limits.usd, limits.llm_tokens, elsewhere=folder.run_calls.usage)
    retry = ServerRetry(settings.patience, settings.max_concurrency, notify)
    desk = LlmDesk()
    with chat_agent(folder, LlmChat(settings.of("chat"), "chat", budget, retry), desk) as agent:
        yield Listener(agent, desk, budget)


def chosen_llm(settings: Llm | None, model: str | None, base_url: str | None) -> Llm | None:
    """The LLM to talk with: as the command line names it, else the task's own; None: none.

    Raises:
        BadInput: an address and no model.
    """
    if model:
        return Llm(model=model, base_url=base_url)
    if base_url:
        raise BadInput(f"--base-url {base_url} needs --llm MODEL, as the server calls it.")
    return settings
