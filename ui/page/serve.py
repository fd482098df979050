"""`nesylora ui`: the page, served on this machine alone."""

import socket
import sys
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn

from agent.errors import BadInput
from graphs.control.anybody import Workers
from ui.page.app import make_app
from ui.page.gate import Keys

HOST = "127.0.0.1"
PORT = 8765
BACKLOG = 64


def serve(runs: Path, port: int | None, browse: bool) -> int:
    """Serve until Ctrl-C. Runs go on: each is worked on by a process of its own.

    Args:
        port: None takes `PORT`, or a free one where that is taken.
        browse: open the page in the user's browser.

    Raises:
        BadInput: the port is taken.
    """
    keys = Keys(runs)
    listening = _listen(port)
    here = f"http://{HOST}:{listening.getsockname()[1]}"
    link = here + keys.link()
    print(f"NeSyLoRA's page on {runs}: {here}\nOpen this link; it lets one browser in, once:\n  {link}", flush=True)
    print("Ctrl-C ends the page. Runs go on without it.", file=sys.stderr, flush=True)
    if browse:
        with suppress(webbrowser.Error):
            webbrowser.open(link)
    app = make_app(runs, Workers(), keys)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none",
        timeout_graceful_shutdown=5, proxy_headers=False,
    )  # fmt: skip
    PageServer(config, app.state.ending).run(sockets=[listening])
    return 0


class PageServer(uvicorn.Server):
    """Ends its streams by itself: cancelled, each prints a traceback.

    Args:
        ending: is set once a signal asks the server to end.
    """

    def __init__(self, config: uvicorn.Config, ending: threading.Event) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._ending.set()
        super().handle_exit(sig, frame)


def _listen(port: int | None) -> socket.socket:
    for wanted in (port,) if port is not None else (PORT, 0):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, wanted))
        except OSError as error:
            listening.close()
            if port is not None:
                raise BadInput(f"--port {port} cannot be used: {error.strerror}. Choose another, or none.") from error
        else:
            listening.listen(BACKLOG)
            return listening
    raise BadInput(f"No port is free on {HOST}.")
