"""The server in its process: where it listens, and how it stops."""

import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from agent.errors import BadInput
from ui.serve.app import Desk

PORT = 8000
BACKLOG = 512
SEND_BUFFER = 256 * 1024  # bytes the system keeps for a reader; by default it takes megabytes before it says "slow"


class DrainingServer(uvicorn.Server):
    """At the first signal requests under way are answered to their end, and new ones refused; at the second it ends.

    Args:
        stopping: called at the first signal.
    """

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Signals are not raised again afterwards: this is how a server is meant to end."""
        if self._desk.draining:
            self.should_exit = self.force_exit = True
        self._desk.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if (self._desk.draining and self._desk.idle) or not self._desk.engine.alive:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(app: FastAPI, listening: socket.socket) -> int:
    """Until a signal; the exit code."""
    desk: Desk = app.state.desk
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none", proxy_headers=False,
        timeout_graceful_shutdown=2, backlog=BACKLOG,
    )  # fmt: skip
    DrainingServer(config, desk).run(sockets=[listening])
    failed = not desk.engine.alive
    desk.engine.close()
    desk.workers.shutdown(cancel_futures=True)
    if desk.log:
        desk.log.close()
    return int(failed)


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that takes connections.

    Args:
        port: None: `PORT`, or a free one where that is taken.

    Raises:
        BadInput: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (port,) if port is not None else (PORT, 0):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            listening.bind((host, wanted))
        except OSError as error:
            listening.close()
            if port is not None or not wanted:
                raise BadInput(f"{host}:{wanted} cannot be listened on: {error.strerror}. Choose another.") from error
        else:
            listening.listen(BACKLOG)
            return listening
    raise BadInput(f"No port is free on {host}.")
