"""A run as a `Steering` that outlives the processes that work on it."""

from collections.abc import Mapping

from agent.errors import BadInput
from agent.records.actions import Action
from agent.records.looks import Finding, Look
from graphs.control.steering import RunStatus, Steering
from memory.run.folder import RunFolder
from ui.page.place import Place, resting


class Anybody:
    """Whoever works on the run at each call. Satisfies `Steering`.

    What sets a run going starts a worker process where nobody works on it; what only makes sense while somebody does
    raises BadInput.
    """

    def __init__(self, run: RunFolder, place: Place) -> None:
        self._run, self._place = run, place

    def status(self, after: int = -1, seconds: float = 0.0) -> RunStatus:
        steering = self._place.steers.attached(self._run)
        return steering.status(after, seconds) if steering else resting(self._run)

    def answer(self, answer: Mapping[str, object], number: int | None = None) -> RunStatus:
        return self._working().answer(answer, number)

    def act(self, action: Action) -> RunStatus:
        return self._begun().act(action)

    def go_on(self, rounds: int | None = None, supervised: bool = True) -> RunStatus:
        """See `Steering`; `supervised` counts where a process has to be started, which works on at once."""
        steering = self._place.steers.attached(self._run)
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
        return (self._begun() if self._run.outcome() else self._working()).look(look)

    def _begun(self, supervised: bool = True) -> Steering:
        return self._place.steers.steered(self._run, supervised)

    def _working(self) -> Steering:
        steering = self._place.steers.attached(self._run)
        if steering is None:
            raise BadInput(f"Nobody works on {self._run.name} now. Resume it first.")
        return steering
