"""The one error vocabulary. Rooms raise these plainly; the faces turn them into a sentence and an exit code."""

import errno
import shutil
from pathlib import Path


class NesyLoraError(Exception):
    """Anything a user can mend. The message names the thing, the place and the way out."""

    exit_code = 1


class BadInput(NesyLoraError):
    """A task, a row, a path or a flag that cannot be used. Raised before any model is loaded."""

    exit_code = 2


class Busy(NesyLoraError):
    """Another live process holds the run or the memory."""

    exit_code = 3


class DiskFull(NesyLoraError):
    """The disk has no room for a file. What was written before is whole, and a run goes on with resume.

    Args:
        path: what could not be written.
        needed: bytes that it takes, about.
    """

    def __init__(self, path: Path, needed: int) -> None:
        free = shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free
        super().__init__(
            f"The disk is full: {path} could not be written ({needed:,} bytes needed, {free:,} free). "
            "All that was written before is whole. Make room, then resume."
        )


def is_disk_full(error: BaseException) -> bool:
    """Whether a file could not be written for lack of room. (safetensors and Chroma name the cause in words only.)"""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "no space left on device" in str(error).lower() or "disk is full" in str(error).lower()


class ExtensionFailed(NesyLoraError):
    """Code of the user's own, registered as scorer, editor or policy, raised what is no NesyLoraError."""


class StepFailed(NesyLoraError):
    """A lever could not finish, such as a loss that is not finite. The pair before it stands."""


class LlmUnavailable(NesyLoraError):
    """The external LLM did not answer, or its answer cannot be used. The rules go on without it."""


class Useless(LlmUnavailable):
    """An answer came, and nothing can be made of it. The next question may fare better."""


class LlmRefused(LlmUnavailable):
    """The key is refused, or the credit used up: nothing is asked any more in this run."""


class OutOfMoney(LlmUnavailable):
    """The call could cost more money or tokens than are left of the budget, so it was not made."""


class TooLong(LlmUnavailable):
    """What was asked is longer than the LLM's window. Worth one more try with less."""


class BrokenOff(BaseException):
    """A user breaks the step under way off. Like Ctrl-C, it passes through all that catches errors."""


class Cancelled(BrokenOff):
    """The action under way is not to be done again: its round ends, and changes nothing."""


class OutOfBudget(Cancelled):
    """What answers cost has used up a budget, so that the action under way is broken off; the message says which."""
