"""One call of a tool: its progress, and the yes of a person for what is costly or final."""

import time
from typing import TYPE_CHECKING, Literal

import anyio.to_thread
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent.errors import BadInput
from agent.records.base import digest
from graphs.control.steering import RunStatus, Steering, Step
from ui.mcp.runs import EVERY
from ui.status_wording import progress

if TYPE_CHECKING:
    from fastmcp import Context

Asking = Literal["train_lora", "continue_run", "extend", "finish"]
FORM = {
    "type": "object",
    "properties": {"approve": {"type": "boolean", "title": "Go ahead", "description": "Yes, do it."}},
    "required": ["approve"],
}
KEY = "approve"


class NeedsYes(Exception):
    """The client is asked first, in the way of the protocol of 2026: it calls again with the answer."""

    def __init__(self, request: InputRequiredResult) -> None:
        super().__init__("the user is asked first")
        self.request = request


class Talk:
    """What a tool's work needs of its caller.

    Args:
        allowed: tools that need no yes, since whoever started the server has given it.
    """

    def __init__(self, context: "Context", allowed: frozenset[str]) -> None:
        self._context = context
        self._allowed = allowed
        self._told = 0

    async def approval(self, tool: Asking, what: str, seen: object = None) -> None:
        """Ask a person, unless whoever started the server has said yes beforehand.

        Args:
            what: a sentence about what will be done, with its cost.
            seen: what the run waits for, as JSON values: a yes that comes with the next call holds for that alone.

        Raises:
            NeedsYes: the answer comes with the next call.
            BadInput: no, or nobody can be asked.
        """
        if tool in self._allowed:
            return
        session, request = self._context.session, self._context.request_context
        capabilities = session.client_capabilities
        if capabilities is None or capabilities.elicitation is None:
            raise BadInput(
                f"{tool} needs the yes of a person, and this client cannot ask for it (it has no elicitation). Nothing "
                f"was done. Ways out: the user approves in a terminal (nesylora chat RUN), or starts this server with "
                f"`nesylora mcp --allow {tool}`. What would be done: {what}"
            )
        if request is not None and request.protocol_version in MODERN_PROTOCOL_VERSIONS:
            self._read(self._context, tool, what, seen)
            return
        answer = await session.elicit(message=what, requested_schema=FORM, related_request_id=self._context.request_id)
        _check(answer, tool)

    def _read(self, context: "Context", tool: Asking, what: str, seen: object) -> None:
        """The answer that this call brings. Raises NeedsYes where it is the first call."""
        mark = digest([tool, what, seen])
        answer = (context.input_responses or {}).get(KEY)
        if answer is None or context.request_state != mark:  # never asked, or asked about something else
            form = ElicitRequestFormParams(message=what, requested_schema=FORM)
            request = InputRequiredResult(input_requests={KEY: ElicitRequest(params=form)}, request_state=mark)
            raise NeedsYes(request)
        _check(answer, tool)

    async def settled(self, steering: Steering, status: RunStatus, seconds: float) -> RunStatus:
        """The run's status once it does not work any more, or after so many seconds; progress is told meanwhile."""
        until = time.monotonic() + seconds
        while status.condition == "working" and (left := until - time.monotonic()) > 0:
            status = await in_thread(steering.status, status.version, min(EVERY, left))
            if status.step:
                await self.progress(status.step)
        return status

    async def progress(self, step: Step) -> None:
        """Tell how far a step is. (Its number only grows: steps follow each other, and the protocol wants it so.)"""
        self._told += 1
        await self._context.report_progress(self._told, message=progress(step))


in_thread = anyio.to_thread.run_sync


def _check(answer: object, tool: Asking) -> None:
    if not isinstance(answer, ElicitResult) or answer.action != "accept" or not (answer.content or {}).get(KEY):
        raise BadInput(f"{tool}: the user said no. Nothing was done; propose something else.")
