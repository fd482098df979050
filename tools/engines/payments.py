"""What the answers of a hosted model cost: charged to a run's budget as calls to the external LLM are."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import httpx

from agent.config.llm import Price
from agent.errors import NesyLoraError
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

    @contextmanager
    def call(self, messages: Sequence[Message], new: int) -> Iterator[Callable[[Completion], None]]:
        """Pays for the request that is made inside, by what it is told of the answer.

        Where that never comes, a refused request costs nothing, as does one that reached no server; others may have
        been billed, and stay charged at their most. So is what a server does not count.

        Args:
            new: most tokens of the answer.
        """
        budget, began = self._budget(), time.monotonic()
        most = self._usage(sum(len(message["content"].encode()) + UNSEEN for message in messages), new)
        call = budget.begin("engine", self._model, most)

        def pay(answer: Completion) -> None:
            read, written = answer.read or most.input_tokens, answer.written or most.output_tokens
            fault = "" if answer.read and answer.written else NO_USAGE
            budget.settle(call, self._usage(read, written), time.monotonic() - began, fault)

        try:
            yield pay
        except Refused as error:
            budget.settle(call, Usage(calls=1), time.monotonic() - began, str(error))
            raise
        except NesyLoraError as error:
            if isinstance(error.__cause__, (*UNSENT, Refused)):
                budget.settle(call, Usage(calls=1), time.monotonic() - began, str(error))
            raise

    def _usage(self, read: int, written: int) -> Usage:
        usd = (read * self._price.input + written * self._price.output) / 1e6
        return Usage(calls=1, input_tokens=read, output_tokens=written, usd=usd)
