"""How runs are reached: by the process that works on them, or a new one."""

from graphs.control.steering import Steering
from memory.run.folder import RunFolder


class Workers:
    """Satisfies `ui.page.place.Steers`."""

    def attached(self, run: RunFolder) -> Steering | None:
        return None

    def steered(self, run: RunFolder, supervised: bool) -> Steering:
        raise NotImplementedError
