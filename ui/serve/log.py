"""Served requests, a JSON line each, for whoever asked for them with --log."""

import os
import stat
import sys
from pathlib import Path

from agent.errors import BadInput
from agent.records.served import ServedRequest


class RequestLog:
    """Appends to a file that only its owner can read. If that fails, the server goes on without, and says so once.

    Raises:
        BadInput: the file cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._opened = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            if stat.S_ISREG(os.fstat(self._opened).st_mode):
                self._take_over()
        except OSError as error:
            raise BadInput(f"--log {file} cannot be written: {error.strerror}") from error
        self._failed = False

    def _take_over(self) -> None:
        """A file that was there may be open to others, and end within a line, where a kill cut it off."""
        os.fchmod(self._opened, 0o600)
        size = os.fstat(self._opened).st_size
        if size and os.pread(self._opened, 1, size - 1) != b"\n":
            os.write(self._opened, b"\n")

    def add(self, request: ServedRequest) -> None:
        if self._failed:
            return
        line = f"{request.model_dump_json()}\n".encode("utf-8", "backslashreplace")
        try:
            os.write(self._opened, line)
        except OSError as error:
            self._failed = True
            print(f"nesylora: {self.file}: {error.strerror}; requests are logged no more", file=sys.stderr, flush=True)

    def close(self) -> None:
        os.close(self._opened)
