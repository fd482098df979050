"""Adapts a model through the MCP tools alone, as another agent would. Run: python examples/mcp_client.py [TASK]"""

import asyncio
import sys
from typing import Any

from mcp import Client, StdioServerParameters

from agent.example_tasks import shipped

SERVER = StdioServerParameters(command=sys.executable, args=["-P", "-m", "nesylora", "mcp", "--allow", "all"])


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool answers, as a record; what it says is printed."""
    result = await client.call_tool(tool, arguments, progress_callback=progress)
    print(f"\n> {tool} {arguments}\n{result.content[0].text}", flush=True)
    if result.is_error:
        raise SystemExit(1)
    return result.structured_content


async def progress(done: float, total: float | None, message: str | None) -> None:
    """One line, written over."""
    print(f"\r  {message:<76.76}", end="", file=sys.stderr, flush=True)


async def adapt(task: str) -> None:
    async with Client(SERVER) as client:
        now = await call(client, "start_run", task=task)
        while now["condition"] != "finished":
            run = now["run"]
            if now["condition"] == "working":
                now = await call(client, "status", run=run, wait=600)
            elif now["planned"]["final"]:
                now = await call(client, "finish", run=run, wait=600)
            else:
                now = await call(client, "continue_run", run=run, wait=600)
        await call(client, "report", run=run)


if __name__ == "__main__":
    asyncio.run(adapt(sys.argv[1] if len(sys.argv) > 1 else str(shipped("valley"))))
