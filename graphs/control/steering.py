"""What any face (terminal, page, MCP server, `nesylora ctl`) may do with a run, wherever the run works."""

from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic import Field

from agent.records.actions import Action
from agent.records.base import Record
from agent.records.limits import Limits
from agent.records.looks import Finding, Look
from agent.records.rounds import Spend
from graphs.approval import Question

Condition = Literal["working", "waiting", "paused", "finished", "stopped"]
"""waiting: for the answer to a question; paused: by the user, between steps; finished: the test rows are opened;
stopped: no process works on it, and it can be gone on with."""


class Step(Record):
    """What a run is doing now: progress as its listener is told it."""

    what: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    seconds_left: float | None = Field(None, description="estimated from the progress so far")


class RunStatus(Record):
    """All that a face shows of a run under way, beside its ledger and its events."""

    run: str
    folder: str
    condition: Condition
    version: int = Field(
        0, description="grows with each change, also from one process to the next, so that a face can wait for it"
    )
    pid: int | None = Field(None, description="of the process that works on it")
    supervised: bool = False
    pausing: bool = Field(False, description="it pauses after the step under way")
    step: Step | None = None
    question: Question | None = None
    rounds: int = Field(0, description="done")
    seed_reward: float | None = None
    reward: float | None = Field(None, description="of the best pair, on validation rows")
    limits: Limits
    spend: Spend = Spend()
    trouble: str = Field("", description="why the run stopped, where that was an error; or what is wrong right now")


class Steering(Protocol):
    """A run to be steered: in this process (`graphs.control.driver`), or in another (`graphs.control.client`).

    Every call returns as soon as it is understood; what it sets off is seen in `status`. All raise BadInput where they
    cannot be followed, with the way out, and Busy where another process has the run and cannot be reached.
    """

    def status(self, after: int = -1, seconds: float = 0.0) -> RunStatus:
        """The status now; or, with `after`, as soon as its version is beyond that, waited for at most so long."""

    def answer(self, answer: Mapping[str, object], number: int | None = None) -> RunStatus:
        """Answer the open question, in the schema of `graphs.approval`.

        Args:
            number: of the round that the user saw. BadInput if another question is open by now.
        """

    def act(self, action: Action) -> RunStatus:
        """Do this next, whatever is planned: as `graphs.approval.as_answer`, so that settings which the action was not
        made with are as planned, or as the rules have them. Of a finished run: see `extend`."""

    def go_on(self, rounds: int | None = None) -> RunStatus:
        """Go on after a pause; or approve what is planned for so many rounds, without asking."""

    def pause(self, now: bool = False) -> RunStatus:
        """Stop after the step under way; `now`: break it off, and do it again when the run goes on."""

    def cancel_step(self) -> RunStatus:
        """Break off the action under way. It stays cancelled: the round is over, nothing is changed, and the next is
        planned (and, supervised, asked)."""

    def extend(self, **limits: float | None) -> RunStatus:
        """Set limits by the names of `Limits`. A finished run is opened again, under the same ledger; its test result
        is marked as seen."""

    def finish(self) -> RunStatus:
        """End the run: open the test rows and write the report."""

    def leave(self) -> RunStatus:
        """End the process that works on it, cleanly; the run can be gone on with."""

    def look(self, look: Look) -> Finding:
        """What is found about the pair that stands now (try a prompt, score rows, search the memory). Only while the
        run does not work on a step."""
