"""A run as a `Steering` that outlives the processes that work on it."""

import time
from collections.abc import Mapping
from typing import Protocol

from agent.errors import BadInput
from agent.records.actions import Action
from agent.records.looks import Finding, Look
from graphs.control.client import STARTS, live, resting, steer
from graphs.control.steering import RunStatus, Steering
from memory.run.folder import RunFolder

EVERY = 0.5  # seconds between two looks at a run that nobody works on


class Steers(Protocol):
    """How a run is reached."""

    def attached(self, run: RunFolder) -> Steering | None:
        """Whoever works on the run, in another process; None where nobody does."""

    def steered(self, run: RunFolder, supervised: bool) -> Steering:
        """Whoever works on the run; a new worker process where nobody does."""


class Workers:
    """By the process that works on it, or a new one, which outlives this one. Satisfies `Steers`."""

    def attached(self, run: RunFolder) -> Steering | None:
        return live(run)

    def steered(self, run: RunFolder, supervised: bool) -> Steering:
        return steer(run, supervised)


class Anybody:
    """Whoever works on the run at each call. Satisfies `Steering`.

    What sets a run going starts a worker process where nobody works on it; what only makes sense while somebody does
    raises BadInput.
    """

    def __init__(self, run: RunFolder, steers: Steers) -> None:
        self._run, self._steers = run, steers
        self._last: RunStatus | None = None  # what was said last

    def status(self, after: int = -1, seconds: float = 0.0) -> RunStatus:
        until = time.monotonic() + seconds
        while True:
            self._last = self._now(after, max(0.0, until - time.monotonic()))
            left = until - time.monotonic()
            if self._last.version > after or left <= 0:
                return self._last
            time.sleep(min(EVERY, left))

    def _now(self, after: int, seconds: float) -> RunStatus:
        """As whoever works on it says; of a run that rests, the version grows where anything is new."""
        if steering := self._steers.attached(self._run):
            return steering.status(after, seconds)
        now, last = resting(self._run), self._last
        if last and now.model_copy(update={"version": last.version}) == last:
            return last
        version = max(int(time.time() * 1000), last.version + 1 if last else 0)
        return now.model_copy(update={"version": version})

    def answer(self, answer: Mapping[str, object], number: int | None = None) -> RunStatus:
        return self._working().answer(answer, number)

    def act(self, action: Action) -> RunStatus:
        return self._begun().act(action)

    def go_on(self, rounds: int | None = None, supervised: bool = True) -> RunStatus:
        """See `Steering`; `supervised` counts where a process has to be started, which works on at once."""
        steering = self._steers.attached(self._run)
        if steering is None:
            steering = self._begun(supervised)
            return steering.go_on(rounds) if rounds else steering.status()
        return steering.go_on(rounds)

    def pause(self, now: bool = False) -> RunStatus:
        return self._working().pause(now)

    def cancel_step(self) -> RunStatus:
        return self._working().cancel_step()

    def extend(self, **limits: float | None) -> RunStatus:
        return self._begun().extend(**limits)

    def finish(self) -> RunStatus:
        return self._begun().finish()

    def leave(self) -> RunStatus:
        return self._working().leave()

    def look(self, look: Look) -> Finding:
        """Not of a run that nobody works on and that has not finished: whoever came would go on with it."""
        if not self._run.outcome():
            return self._working().look(look)
        steering, until = self._begun(), time.monotonic() + STARTS
        status = steering.status()
        while status.condition == "working" and time.monotonic() < until:  # it has just been started
            status = steering.status(status.version, EVERY)
        return steering.look(look)

    def _begun(self, supervised: bool = True) -> Steering:
        return self._steers.steered(self._run, supervised)

    def _working(self) -> Steering:
        steering = self._steers.attached(self._run)
        if steering is None:
            raise BadInput(f"Nobody works on {self._run.name} now. Resume it first.")
        return steering
