"""The process's event loop for calls to the external LLM, in a thread of its own."""

import asyncio
import threading
from functools import cache

STARTING = threading.Lock()  # several threads may make the first call at the same time


def event_loop() -> asyncio.AbstractEventLoop:
    """One loop for the whole process: a connection stays bound to the loop that first used it."""
    with STARTING:
        return _started()


@cache
def _started() -> asyncio.AbstractEventLoop:
    made = asyncio.new_event_loop()
    threading.Thread(target=made.run_forever, name="llm", daemon=True).start()
    return made
