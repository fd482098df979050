"""What the answers of a hosted model cost: charged to a run's budget as calls to the external LLM are."""

import time
from collections.abc import Callable, Sequence

import httpx

from agent.config.llm import Price
from agent.records.rounds import Usage
from tools.engines.completions import Completion
from tools.engines.server import Refused
from tools.llm.budget import LlmBudget
from tools.llm.connection import UNSEEN
from tools.model.chat_template import Message

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout)
NO_USAGE = "the server reports no usage"


class Payments:
    """For any number of threads.

    Args:
        model: as the log of calls has it.
        price: of its tokens.
        budget: charged before a request with the most that it can cost, and after it with what it cost.
    """

    def __init__(self, model: str, price: Price, budget: Callable[[], LlmBudget]) -> None:
        self._model = model
        self._price = price
        self._budget = budget

    def paid(self, messages: Sequence[Message], new: int, ask: Callable[[], Completion]) -> Completion:
        """The answer to one request, which is paid for. Raises what `ask` raises.

        A request that is refused costs nothing, nor does one that reached no server. Another that brings no answer may
        have been billed, and stays charged at its most, as does what a server does not count.

        Args:
            new: most tokens of the answer.
            ask: makes just this request.
        """
        budget, began = self._budget(), time.monotonic()
        most = self._usage(sum(len(message["content"].encode()) + UNSEEN for message in messages), new)
        call = budget.begin("engine", self._model, most)
        try:
            answer = ask()
        except (Refused, *UNSENT) as error:
            budget.settle(call, Usage(calls=1), time.monotonic() - began, str(error))
            raise
        used = self._usage(answer.read or most.input_tokens, answer.written or most.output_tokens)
        fault = "" if answer.read and answer.written else NO_USAGE
        budget.settle(call, used, time.monotonic() - began, fault)
        return answer

    def _usage(self, read: int, written: int) -> Usage:
        usd = (read * self._price.input + written * self._price.output) / 1e6
        return Usage(calls=1, input_tokens=read, output_tokens=written, usd=usd)
