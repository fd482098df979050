"""control.json in a run folder: the process that works on the run, and where it can be reached."""

import os
import socket
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from agent.errors import NesyLoraError
from agent.records.base import Record, digest
from memory.run.folder import RunFolder
from memory.run.naming import as_typed
from memory.storage.disk import write_atomically
from memory.storage.lock import is_holder

HOME = Path(__file__).resolve().parents[2]
LONGEST = 100  # bytes of a socket's path; the system allows 107, and on some 103


class Process(Record):
    """What a process that works on a run says of itself, or what it said last."""

    pid: int
    host: str = Field(default_factory=socket.gethostname)
    socket: str = Field("", description="path; empty once the process lets go of the run")
    served: bool = Field(False, description="the socket has been listened on")
    since: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    trouble: str = Field("", description="the error that it ended with")


def noted(folder: RunFolder) -> Process | None:
    """What the last process has noted; None where none has, or it has ended well."""
    found = last(folder)
    return found if found and (found.socket or found.trouble) else None


def on_its_way(folder: RunFolder) -> Process | None:
    """The process that has the run, where that has noted itself: it can be reached soon, or has let go of its socket.

    One that can be reached is on no way; so ask for that first.
    """
    found = last(folder)
    if found is None or found.host != socket.gethostname() or not is_holder(folder.lock_path, found.pid, _file(folder)):
        return None
    return found


def lost(folder: RunFolder) -> str:
    """Why nobody will reach the process that works on the run, which lives; empty where there is no such process."""
    at = on_its_way(folder)
    if at is None or not at.socket or not at.served or Path(at.socket).exists():
        return ""
    if last(folder) != at:  # it lets go: it notes that, and then takes its socket away
        return ""
    return (
        f"Process {at.pid} works on run {folder.name} and cannot be reached any more: its socket {at.socket} is gone, "
        f"as where a folder for temporary files is cleared. It goes on by itself. To steer it, end it (kill {at.pid}), "
        f"then go on with: nesylora resume {as_typed(folder.path)}"
    )


def note(folder: RunFolder, process: Process) -> None:
    """Note who works on the run."""
    write_atomically(_file(folder), process.model_dump_json(indent=2))


def forget(folder: RunFolder) -> None:
    """Of a process that ends at once, and well."""
    _file(folder).unlink(missing_ok=True)


def last(folder: RunFolder) -> Process | None:
    """What the last process has noted, however it ended; None where there was none, or it cannot be read."""
    try:
        return Process.model_validate_json(_file(folder).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def socket_path(folder: RunFolder) -> Path:
    """A new path for a socket, short enough, in a folder that only this user can enter.

    Raises:
        NesyLoraError: the folder belongs to somebody else.
    """
    name = f"{digest([str(folder.path), os.getpid()])}.sock"
    own = [Path(tempfile.gettempdir()) / f"nesylora-{os.getuid()}", Path(f"/tmp/nesylora-{os.getuid()}")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        own.insert(0, Path(runtime) / "nesylora")
    short = [place for place in own if len(os.fsencode(place / name)) <= LONGEST]
    for place in short:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:  # no such runtime folder any more, or not ours to write
            continue
        found = place.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            place.chmod(0o700)
            return place / name
    raise NesyLoraError(
        f"No folder for the socket that others reach this run by: {', '.join(map(str, short))} cannot be used. Set "
        "TMPDIR to a short path of your own."
    )


def environment() -> dict[str, str]:
    """Of a process of our own, which finds our packages wherever it starts."""
    paths = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _file(folder: RunFolder) -> Path:
    return folder.path / "control.json"
