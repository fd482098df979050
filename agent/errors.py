"""The one error vocabulary. Rooms raise these plainly; the faces turn them into a sentence and an exit code."""


class NesyLoraError(Exception):
    """Anything a user can mend. The message names the thing, the place and the way out."""

    exit_code = 1


class BadInput(NesyLoraError):
    """A task, a row, a path or a flag that cannot be used. Raised before any model is loaded."""

    exit_code = 2


class Busy(NesyLoraError):
    """Another live process holds the run or the memory."""

    exit_code = 3


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
    """The call could cost more than is left of the budget, so it was not made."""


class TooLong(LlmUnavailable):
    """What was asked is longer than the LLM's window. Worth one more try with less."""


class BrokenOff(BaseException):
    """A user breaks the step under way off. Like Ctrl-C, it passes through all that catches errors."""


class Cancelled(BrokenOff):
    """The action under way is not to be done again: its round ends, and changes nothing."""
