"""A run of this process, reachable for other processes of the same user over a Unix socket."""

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graphs.control import process, wire
from graphs.control.driver import Driver
from memory.run.folder import RunFolder

SLOW = 5.0  # seconds in which a client has to say what it wants


class Server:
    """Answers on a socket, each connection in a thread of its own.

    Args:
        path: of the socket; the folder is the user's alone.
    """

    def __init__(self, driver: Driver, path: Path) -> None:
        self._driver = driver
        self._path = path
        path.unlink(missing_ok=True)  # of a dead process that had this id
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen(16)
        self._answering = set[threading.Thread]()
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more, but those who have asked: who told the process to leave hears that it does."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()
        self._path.unlink(missing_ok=True)
        until = time.monotonic() + SLOW
        for thread in list(self._answering):
            thread.join(max(0.0, until - time.monotonic()))

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            answers = threading.Thread(target=self._answer, args=(connection,), name="control", daemon=True)
            self._answering.add(answers)
            answers.start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):  # a client that went away wants no answer
                connection.settimeout(SLOW)
                if not same_user(connection):
                    return
                with connection.makefile("rb") as lines:
                    line = lines.readline(wire.MOST)
                if line:
                    connection.sendall(wire.answered(line, self._driver))
        finally:
            self._answering.discard(threading.current_thread())


def same_user(connection: socket.socket) -> bool:
    """Whether the other end is this user, or root. Where the system does not tell, the socket's folder has kept others
    out."""
    if sys.platform != "linux":
        return True
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return user in (os.getuid(), 0)


@contextmanager
def taken(folder: RunFolder) -> Iterator[process.Process]:
    """The run, which this process has the lock of, noted as its own: also before and after it can be reached."""
    path, before = process.socket_path(folder), process.noted(folder)
    if before and before.socket and (left := Path(before.socket)).parent == path.parent:
        left.unlink(missing_ok=True)  # by a process that was killed: the run's lock is ours
    mine = process.Process(pid=os.getpid(), socket=str(path))
    process.note(folder, mine)
    try:
        yield mine
    finally:
        now = process.noted(folder)
        if now and now.socket == mine.socket and folder.path.exists():  # it was never served: what was noted stands
            process.note(folder, before or _ended(mine))


@contextmanager
def served(driver: Driver, folder: RunFolder, mine: process.Process) -> Iterator[Server]:
    """The run reachable for others inside.

    Args:
        mine: as `taken` has noted it.
    """
    server = Server(driver, Path(mine.socket))
    try:
        process.note(folder, mine.model_copy(update={"served": True}))
        yield server
    finally:
        try:  # before it can be reached no more: who finds it gone reads here how it ended
            if folder.path.exists():
                process.note(folder, _ended(mine, "" if driver.error is None else str(driver.error)))
        finally:
            server.close()


def _ended(mine: process.Process, trouble: str = "") -> process.Process:
    return mine.model_copy(update={"socket": "", "trouble": trouble})
