"""A run as an agent of the user's own works on it: it pulls the levers and looks, by the same nodes as the graph."""

import threading
from typing import TYPE_CHECKING

from agent.errors import BadInput
from agent.policy.base import stop_reason
from agent.protocols import Briefing
from agent.records.actions import Action, Rollback, Stop
from agent.records.looks import Finding, Look
from agent.records.rounds import Outcome, Round, RoundSummary
from graphs.approval import as_answer
from graphs.looking import Looking
from graphs.nodes.plan import why_closed
from graphs.session import Session

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool


class Workbench:
    """Satisfies `tools.toolbox.Workbench` with a supervised session: every action of the agent is a round of the run.

    Safe for several threads: one call works at a time. What an agent looks at is charged to its next round.

    Args:
        session: opened with `supervised=True`, so that the run waits for the agent before every action.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()

    def pull(self, action: Action) -> RoundSummary | Outcome:
        """One round with this action, judged and remembered; for `stop`, the end of the run on its test rows.

        Settings that the action was not made with are as planned, or as the rules have them; see `graphs.approval`.

        Raises:
            BadInput: the action cannot be executed, the run has ended, or its target or a budget ends it now.
        """
        with self._lock:
            return self._pull(action)

    def look(self, look: Look) -> Finding:
        """What is found about the pair that stands now. The round that follows is charged for it.

        Raises:
            BadInput: it cannot be done, or the run has ended.
            StepFailed: the run's minutes are used up.
        """
        with self._lock:
            state, services = self._waiting().state, self._session.services
            with services.meter.between_steps(state["spend"], services.spec.config.budget.minutes):
                return Looking(state, services).look(look)

    def _pull(self, action: Action) -> RoundSummary | Outcome:
        session, folder = self._waiting(), self._session.services.folder
        state, config = session.state, session.services.spec.config
        if not isinstance(action, Stop | Rollback):
            closed = why_closed(session.services)
            briefing = Briefing(state["signal"], state["diagnosis"], folder.rounds(), state["spend"], closed=closed)
            if ended := stop_reason(briefing, config):
                raise BadInput(f"{ended} Only rollback and stop are left.")
        question = session.go(as_answer(action))
        if question and question.fault:
            raise BadInput(question.fault)
        if outcome := folder.outcome():
            return outcome
        row = folder.rounds()[-1]
        return summary(row, config.target, max(0, config.budget.rounds - row.number))

    def _waiting(self) -> Session:
        """The session, with the run at a question: it is begun, or goes on after a kill, at the first call."""
        if self._session.finished:
            raise BadInput("The run has ended; its best pair and its report are in the run folder.")
        if not self._session.services.supervised:
            raise BadInput("The session must be opened with supervised=True, so that the run waits for its agent.")
        self._session.go()
        return self._session


def summary(row: Round, target: float, rounds_left: int) -> RoundSummary:
    """A round in short."""
    return RoundSummary(
        number=row.number,
        action=row.decision.move.action,
        note=row.trial.note,
        kept=row.verdict.kept,
        reason=row.verdict.reason,
        before=row.verdict.before,
        after=row.verdict.after,
        p_value=row.verdict.p_value,
        reward=row.reward,
        target=target,
        rounds_left=rounds_left,
        seconds=row.trial.spend.seconds,
    )


def make_tools(session: Session) -> "list[StructuredTool]":
    """The levers and the looking tools of a run, for an agent of the user's own; see `tools.toolbox`.

    An agent should pull one lever a message: LangGraph calls the tools of one message in threads, in no fixed order.

    Args:
        session: opened with `supervised=True`; the tools work for as long as it is open.
    """
    from tools.toolbox import toolbox

    return toolbox(Workbench(session))
