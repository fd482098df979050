"""Plain language: what no phrase says goes to the external LLM, and what it chooses is done by the same commands."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from agent.config.llm import Llm
from agent.errors import BadInput
from agent.records.actions import Stop, TrainLora
from agent.records.limits import Limits
from agent.records.rounds import Round, Usage
from graphs.approval import APPROVE
from graphs.conversation import commands
from graphs.conversation.agent import ChatAgent, Event, chat_agent
from memory.run.folder import RunFolder
from tools.llm.budget import LlmBudget
from tools.llm.client import LlmChat
from tools.llm.retry import ServerRetry
from ui import wording
from ui.talk import answers, plans
from ui.talk.lines import Line, line
from ui.talk.talk import Talk

SHOWN = ("/try", "/prompt", "/diff")  # looks whose result is what the user wants to see
LAST_ROUNDS = 3


class LlmDesk:
    """Satisfies `graphs.conversation.agent.Desk` with a conversation: what the LLM does, the user sees."""

    def __init__(self) -> None:
        self.talk: Talk | None = None

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

        def say(said: Line) -> None:
            seen.append(said)
            if shows:
                face(said)

        face = talk.say
        talk.do(command, say)
        return "\n".join(said.text for said in seen)

    def carried_out(self) -> list[str]:
        names = {"train_lora": "/train", "edit_prompt": "/edit", "rollback": "/rollback", "stop": "/finish"}
        rounds = self._talk.folder.rounds()
        return ["/stop" if row.trial.cancelled else names[row.decision.move.action] for row in rounds]

    def weigh(self, command: str) -> str:
        name, _, rest = command.partition(" ")
        question = self._talk.run.status().question
        if name == "/finish":
            return f"That will {plans.what(Stop())}."
        if name == "/set" and any(limit in rest for limit in ("rounds=", "minutes=", "usd=")):
            return f"Limits to be set: {rest}."
        if name == "/run" and self._talk.by_worker:
            return f"Rounds to be done without asking, trainings too: {rest or 1}."
        if question is None:
            return ""
        planned = question.decision.move
        if name == "/approve" and isinstance(planned, TrainLora):
            return f"To be done: {plans.proposal(planned, question)}."
        if name == "/train":
            given = commands.settings(rest, "/train epochs=4")
            epochs = next((ahead.epochs for ahead in question.forecasts if ahead.epochs), TrainLora().epochs)
            base = planned if isinstance(planned, TrainLora) else TrainLora(rows="refined", epochs=epochs)
            action = TrainLora.model_validate(base.model_dump() | given)
            return f"To be done: {plans.proposal(action, question)}."
        return ""

    @property
    def _talk(self) -> Talk:
        assert self.talk is not None, "the conversation knows its LLM before it hears anything"
        return self.talk


class Listener:
    """Satisfies `ui.talk.talk.Listening` with the agent."""

    def __init__(self, agent: ChatAgent, desk: LlmDesk, budget: LlmBudget) -> None:
        self._agent = agent
        self._desk = desk
        self._budget = budget

    def hear(self, text: str, talk: Talk) -> None:
        """Raises LlmUnavailable: it did not answer, or nothing that can be used."""
        self._desk.talk = talk
        now = talk.run.status().limits  # somebody else may have extended the run meanwhile
        self._budget.extend(now.usd, now.llm_tokens)
        before = self._spent
        try:
            self._show(self._agent.hear(text), talk)
        finally:
            if (used := self._spent - before).usd:
                talk.tell(
                    line(f"  ({wording.plural(used.calls, 'call')} to the LLM, {wording.money(used.usd)})", "dim")
                )

    @property
    def _spent(self) -> Usage:
        return self._budget.usage.get("chat", Usage())

    def resume(self, talk: Talk) -> None:
        """Ask again what was open when the user left."""
        self._desk.talk = talk
        if asked := self._agent.question:
            self._ask(asked, talk)

    def _show(self, events: Iterator[Event], talk: Talk) -> None:
        for event in events:
            match event.kind:
                case "command":
                    talk.tell(line(f"  → {event.text}", "dim"))
                case "left out":
                    talk.tell(line(f"  (left out of the LLM's answer: {event.text})", "dim"))
                case "question":
                    self._ask(event.text, talk)
                case "answer":
                    talk.tell(*map(line, event.text.splitlines()))

    def _ask(self, text: str, talk: Talk) -> None:
        def decide(answer: Mapping[str, object]) -> Callable[[], None]:
            return lambda: self._show(self._agent.decide(answer), talk)

        talk.ask(text, decide(APPROVE), decide({"decisions": [{"type": "reject"}]}))


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
