"""The MCP server: over standard input and output, or over HTTP on this machine for whoever has the token."""

import hmac
import json
import secrets
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import mcp_types
from fastmcp import FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.auth import AccessToken, TokenVerifier
from fastmcp.server.dependencies import get_context
from fastmcp.tools.base import InputRequiredToolResult, Tool, ToolResult
from pydantic import PrivateAttr

from agent.errors import NesyLoraError
from agent.records.actions import EditPrompt, Rollback, TrainLora
from agent.records.base import Record
from tools.toolbox import LOOKS, about, schema_of
from ui.mcp import calls
from ui.mcp.command import TOKEN_VARIABLE
from ui.mcp.runs import Runs
from ui.mcp.talk import NeedsYes, Talk
from ui.mcp.tools import Do, Tools
from ui.mcp.views import RunView, in_words

INSTRUCTIONS = """\
Adapts a language model to a task: round after round it trains a LoRA or rewrites the prompt, measures the result on \
validation rows, and keeps it or takes it back. Begin with draft_task (rows, no task yet) or start_run (a task.yaml). \
Then let it go on by its own plan (continue_run), or choose each round yourself (train_lora, edit_prompt, rollback), \
looking first (evaluate, classify_failures, try_prompt). The test rows stay sealed until `finish`. Report what the \
numbers say, and nothing that they do not say."""
READS = mcp_types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
FINAL = mcp_types.ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False)
CHANGES = mcp_types.ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)


class RecordTool(Tool):
    """A tool whose arguments and result are records."""

    _call: type[Record] = PrivateAttr()
    _do: Do[Any] = PrivateAttr()
    _allowed: frozenset[str] = PrivateAttr()

    @classmethod
    def make(
        cls, name: str, call: type[Record], do: Do[Any], allowed: frozenset[str], hints: mcp_types.ToolAnnotations
    ) -> "RecordTool":
        """The tool of this name; what it does is said in the docstring of its call."""
        tool = cls(name=name, description=about(call), parameters=schema_of(call), annotations=hints)
        tool._call, tool._do, tool._allowed = call, do, allowed
        return tool

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        """Do it. Raises ToolError with a sentence, which the client shows its model."""
        try:
            call = calls.read_call(self._call, arguments)
            result = await self._do(call, Talk(get_context(), self._allowed))
        except NeedsYes as question:
            return InputRequiredToolResult(question.request)
        except NesyLoraError as error:
            raise ToolError(str(error)) from error
        values = json.loads(result.model_dump_json())  # NaN, which is not JSON, becomes null
        text = in_words(result) if isinstance(result, RunView) else json.dumps(values, ensure_ascii=False)
        return ToolResult(content=text, structured_content=values)


class OneToken(TokenVerifier):
    """Lets in whoever has the token that the server was started with."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    async def verify_token(self, token: str) -> AccessToken | None:
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        return AccessToken(token=token, client_id="local", scopes=[])


def build_server(runs: Runs, allowed: Collection[str] = (), token: str = "") -> FastMCP:
    """The server with all tools.

    Args:
        allowed: tools of `command.ASKING` that need no person's yes.
        token: without which nobody is let in over HTTP.
    """

    @asynccontextmanager
    async def closing(_: FastMCP) -> AsyncIterator[None]:
        try:
            yield
        finally:
            runs.close()

    auth = OneToken(token) if token else None
    server = FastMCP("nesylora", INSTRUCTIONS, version=_version(), lifespan=closing, auth=auth)
    for tool in _tools(Tools(runs), frozenset(allowed)):
        server.add_tool(tool)
    return server


def _version() -> str:
    """Of ours; without it, clients are told that of fastmcp."""
    try:
        return version("nesylora")
    except PackageNotFoundError:
        return "0"


def _tools(tools: Tools, allowed: frozenset[str]) -> list[RecordTool]:
    done: list[tuple[str, type[Record], Do[Any], mcp_types.ToolAnnotations]] = [
        ("draft_task", calls.DraftTask, tools.draft_task, CHANGES),
        ("start_run", calls.StartRun, tools.start_run, CHANGES),
        ("list_runs", calls.ListRuns, tools.list_runs, READS),
        ("status", calls.Status, tools.status, READS),
        ("continue_run", calls.ContinueRun, tools.continue_run, CHANGES),
        ("train_lora", calls.call_of(TrainLora), tools.train_lora, CHANGES),
        ("edit_prompt", calls.call_of(EditPrompt), tools.edit_prompt, CHANGES),
        ("rollback", calls.call_of(Rollback), tools.rollback, CHANGES),
        *((_name(look), calls.call_of(look), tools.looks(look), READS) for look in LOOKS),
        ("cancel_step", calls.CancelStep, tools.cancel_step, CHANGES),
        ("extend", calls.Extend, tools.extend, CHANGES),
        ("finish", calls.Finish, tools.finish, FINAL),
        ("explain_round", calls.ExplainRound, tools.explain_round, READS),
        ("report", calls.Report, tools.report, READS),
    ]
    return [RecordTool.make(name, call, do, allowed, hints) for name, call, do, hints in done]


def _name(look: type[Record]) -> str:
    return str(look.model_fields["action"].default)


def serve(runs: Runs, allowed: Collection[str], port: int | None, token: str) -> None:
    """Serve until the client leaves (standard input ends), or until Ctrl-C.

    Args:
        port: of 127.0.0.1; None: standard input and output.
        token: for HTTP; one is made where there is none.
    """
    if port is None:
        build_server(runs, allowed).run("stdio", show_banner=False, log_level="WARNING")
        return
    shown = f"${TOKEN_VARIABLE}"  # a secret of the user's own goes into no log
    if not token:
        token = shown = secrets.token_urlsafe(24)
    print(f"MCP server: http://127.0.0.1:{port}/mcp   Authorization: Bearer {shown}", file=sys.stderr, flush=True)
    server = build_server(runs, allowed, token)
    server.run("http", show_banner=False, log_level="WARNING", host="127.0.0.1", port=port, host_origin_protection=True)
