"""The sampling parameters that go with every request, under the names that a server knows, without those it refuses."""

import re
from typing import Any

from agent.config.llm import Llm


class Parameters:
    """Temperature and limit of an answer, for one model. `refused`: what it is not sent any more."""

    def __init__(self, settings: Llm) -> None:
        self.refused: tuple[str, ...] = ()
        self._settings = settings
        self._limits = _limits(settings.base_url)

    def sent(self) -> dict[str, Any]:
        """As they go into the body of the next request."""
        heat = self._settings.temperature
        hot = {} if heat is None or "temperature" in self.refused else {"temperature": heat}
        return {self._limits[0]: self._settings.max_tokens} | hot

    def take_back(self, sent: dict[str, Any], said: str) -> bool:
        """Whether a refusal names one of those sent for which there is another name, or that may be left out.

        Asked again, the next request is without it. The limit of an answer is never left out: what a call can cost
        would have none.

        Args:
            sent: by the request that was refused; other threads may have learned since.
            said: all that the server said.
        """
        for name in sent:
            if not re.search(rf"\b{name}\b", said):
                continue
            if name == "temperature":
                self.refused = (name,)
                return True
            self._limits = [other for other in self._limits if other != name] or self._limits
            if self._limits[0] != name:
                return True
        return False


def _limits(base_url: str | None) -> list[str]:
    """The names under which a server may know the limit of an answer, the likely one first. Some refuse the other."""
    newer, older = "max_completion_tokens", "max_tokens"
    return [newer, older] if base_url is None or "api.openai.com" in base_url else [older, newer]
