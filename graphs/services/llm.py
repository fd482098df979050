"""The external LLM of a run: who asks it in which role, what it has cost, and whether it is still to be had."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from agent.config.llm import Llm
from agent.config.task import Budget
from agent.protocols import Replies
from agent.records.rounds import Role
from memory.replies import ReplyStore
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    from tools.llm.budget import LlmBudget
    from tools.llm.client import LlmChat
    from tools.llm.retry import ServerRetry


class ExternalLlm:
    """One budget for all roles, one retry state for all that call the same server with the same key.

    Args:
        settings: the task's `llm` section; None where there is none, and nothing is ever asked.
        roles: those in which the task asks one.
        folder: keeps the log of calls; answers are kept beside it, for all runs.
        limits: the run's budget, of which money and LLM tokens count here.
        deadline: gives the reading of time.monotonic() at which the run's minutes end, or None. Planner and editor do
            not go beyond it; the judge does, since without a judgement no run ends well.
        notify: takes a sentence on what is waited for.
        brake: asked while an answer is waited for; raises BrokenOff where the user breaks the step off.
        postgres: a database that answers are kept in, in place of a file.
    """

    def __init__(
        self,
        settings: Llm | None,
        roles: Sequence[Role],
        folder: RunFolder,
        limits: Budget,
        deadline: Callable[[], float | None],
        notify: Callable[[str], None],
        brake: Callable[[], None] = lambda: None,
        postgres: str = "",
    ) -> None:
        self._settings = settings
        self._roles = roles
        self._folder = folder
        self._limits = limits
        self._deadline = deadline
        self._notify = notify
        self._brake = brake
        self._postgres = postgres
        self._chats: dict[Role, LlmChat] = {}
        self._retries: dict[tuple[str | None, str], ServerRetry] = {}

    @cached_property
    def budget(self) -> "LlmBudget":
        """What the LLM has cost this run, in this process and before."""
        from tools.llm.budget import LlmBudget

        return LlmBudget(
            self._folder, self._limits.usd, self._limits.llm_tokens, elsewhere=self._folder.chat_calls.usage
        )

    def extend(self, limits: Budget) -> None:
        """Let this budget hold from now on."""
        self._limits = limits
        if "budget" in vars(self):
            self.budget.extend(limits.usd, limits.llm_tokens)

    @property
    def warnings(self) -> list[str]:
        """What can be said of roles before any is asked: that OpenAI's own server wants a key, and there is none."""
        asked = [self._of(role) for role in self._roles]
        variables = {
            settings.key_variable
            for settings in asked
            if settings.base_url is None and not os.environ.get(settings.key_variable)
        }
        return [
            f"{name} is not set, so the external LLM cannot be asked (a server of your own: llm.base_url)."
            for name in sorted(variables)
        ]

    def closed(self, *roles: Role) -> str:
        """Why the server of one of these roles is not asked any more in this run; empty while all are."""
        servers = [_server(self._of(role)) for role in roles]
        found = [self._retries[server].refused for server in servers if server in self._retries]
        return next(filter(None, found), "")

    def chat(self, role: Role) -> "LlmChat":
        """The LLM in this role."""
        if role not in self._chats:
            from tools.llm.client import LlmChat
            from tools.llm.retry import ServerRetry

            settings = self._of(role)
            server = _server(settings)
            if server not in self._retries:  # roles on the same server wait for each other
                self._retries[server] = ServerRetry(settings.patience, settings.max_concurrency, self._notify)
            self._chats[role] = LlmChat(
                settings, role, self.budget, self._retries[server], self._replies,
                deadline=self._deadline if role != "judge" else lambda: None, brake=self._brake,
            )  # fmt: skip
        return self._chats[role]

    def _of(self, role: Role) -> Llm:
        assert self._settings is not None, "the configuration demands an llm section wherever one is used"
        return self._settings.of(role)

    @cached_property
    def _replies(self) -> Replies | None:
        if self._settings is None or not self._settings.cache:
            return None
        if self._postgres:
            from memory.shared.postgres import PostgresReplies, database

            return PostgresReplies(database(self._postgres))
        return ReplyStore(self._folder.path.parent / "replies.sqlite")


def _server(settings: Llm) -> tuple[str | None, str]:
    """What makes two roles' servers the same: the address, and the key they are asked with."""
    return settings.base_url, settings.key_variable
