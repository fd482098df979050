"""The sampling parameters of every request, under the names that a server accepts, without those it refuses."""

import re
from collections.abc import Iterable

from agent.config.llm import Llm


class SamplingParameters:
    """Temperature and length limit of an answer, for one model. `refused`: what is not sent any more."""

    def __init__(self, settings: Llm) -> None:
        self.refused: tuple[str, ...] = ()
        self._settings = settings
        self._limit_names = _limit_names(settings.base_url)

    def parameters(self) -> dict[str, float]:
        """As they go into the body of the next request."""
        temperature = self._settings.temperature
        limit: dict[str, float] = {self._limit_names[0]: self._settings.max_tokens}
        return limit if temperature is None or "temperature" in self.refused else limit | {"temperature": temperature}

    def refuse(self, sent: Iterable[str], response: str) -> bool:
        """Whether a refusal names a parameter that has another name or can be left out; the next request does so.

        The length limit is never left out: without it, nothing would bound the cost of a call.

        Args:
            sent: names in the request that was refused; other threads may have learned since.
            response: the full text of the server's refusal.
        """
        for name in sent:
            if not re.search(rf"\b{name}\b", response):
                continue
            if name == "temperature":
                self.refused = (name,)
                return True
            self._limit_names = [known for known in self._limit_names if known != name] or self._limit_names
            if self._limit_names[0] != name:
                return True
        return False


def _limit_names(base_url: str | None) -> list[str]:
    """The names that a server may use for the limit of an answer, the likely one first. Some refuse the second."""
    newer, older = "max_completion_tokens", "max_tokens"
    return [newer, older] if base_url is None or "api.openai.com" in base_url else [older, newer]
