#!/usr/bin/env bash
# fastmcp 4.1.2, mcp 2.3.0: a tool reports progress by `ctx.report_progress`, and the official client, connected to the
#   server in the same process, passes a `progress_callback`.
# Expected: the callback is called, as it is over stdio; tests in process are how servers are usually tested.
# Seen: nothing arrives and nothing is raised. With `mode="legacy"` (the protocol before 2026-07-28) all of it arrives.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'fastmcp==4.1.2' 'mcp==2.3.0'
cat >progress.py <<'PY'
import asyncio

from fastmcp import Context, FastMCP
from mcp import Client

server = FastMCP("clock")


@server.tool
async def count(ctx: Context) -> str:
    for number in range(3):
        await ctx.report_progress(number + 1, 3)
    return "done"


async def told(**how) -> int:
    seen = []

    async def callback(progress, total, message):
        seen.append(progress)

    async with Client(server._mcp_server, **how) as client:
        await client.call_tool("count", {}, progress_callback=callback)
        await asyncio.sleep(0.2)
    return len(seen)


print(asyncio.run(told()), asyncio.run(told(mode="legacy")))
PY
said=$(venv/bin/python progress.py 2>/dev/null)
echo "progress notifications of 3: as the client connects by itself, and in legacy mode: $said"
if [ "$said" != "0 3" ]; then
    echo "no longer seen: progress arrives in process" >&2
    exit 1
fi
