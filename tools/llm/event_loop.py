"""The one event loop on which the external LLM is asked, in a thread of its own."""

import asyncio
import threading
from functools import cache

STARTING = threading.Lock()  # many threads may be the first to ask


def loop() -> asyncio.AbstractEventLoop:
    """The same for the whole process: connections stay bound to the loop that they were first used on."""
    with STARTING:
        return _started()


@cache
def _started() -> asyncio.AbstractEventLoop:
    made = asyncio.new_event_loop()
    threading.Thread(target=made.run_forever, name="llm", daemon=True).start()
    return made
