"""The LLM budget of a run: what its calls cost, logged before each call and after it."""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from agent.errors import OutOfMoney
from agent.protocols import CallLog
from agent.records.rounds import Call, Role, Spend, Usage


class UnsavedCallLog(list[Call]):
    """A log of calls in memory, for calls that belong to no run. Satisfies `agent.protocols.CallLog`."""

    def calls(self) -> list[Call]:
        return list(self)

    def log(self, call: Call) -> None:
        self.append(call)

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()


class LlmBudget:
    """One budget for all roles of a run, safe for several threads, and for a run and its chat in two processes.

    What an earlier process spent is read from the log; a call that a kill interrupted counts at the most it can cost.

    Args:
        log: holds each call from before it is sent.
        limit: USD that the whole run may spend. None: no limit.
        tokens: that the whole run may send and receive. None: no limit.
        elsewhere: what calls of the same run cost that another process logs in a file of its own.
    """

    def __init__(
        self,
        log: CallLog,
        limit: float | None = None,
        tokens: int | None = None,
        elsewhere: Callable[[], Mapping[Role, Usage]] = dict,
    ) -> None:
        self._log = log
        self._limit, self._tokens = limit, tokens
        self._elsewhere = elsewhere
        self._lock = threading.Lock()
        latest = {call.number: call for call in log.calls()}
        self._usage: dict[Role, Usage] = {}
        self._in_flight: dict[int, Usage] = {}  # calls of this process, at the most they can cost
        for call in latest.values():
            self._charge(call.role, call.usage)
        self._next = max(latest, default=0) + 1

    def extend(self, limit: float | None, tokens: int | None) -> None:
        """Let other limits hold from the next call on; as the arguments of the same names."""
        with self._lock:
            self._limit, self._tokens = limit, tokens

    def reserve(self, role: Role, model: str, most: Usage) -> Call:
        """Charge a call at the most it can cost, before it is sent.

        Raises:
            OutOfMoney: this is more than what is left; nothing is charged.
        """
        with self._lock, self._log.alone():
            self._check(model, most)
            return self._begun(role, model, most)

    def begin(self, role: Role, model: str, most: Usage) -> Call:
        """As `reserve`, whatever is left: for calls that a run cannot do without. It ends by `used_up`."""
        with self._lock, self._log.alone():
            return self._begun(role, model, most)

    def _begun(self, role: Role, model: str, most: Usage) -> Call:
        call = self._numbered(role, model, most)
        self._charge(role, most)
        self._in_flight[call.number] = most
        self._log.log(call)
        return call

    def _check(self, model: str, most: Usage) -> None:
        spent = self._total()
        # A billionth of a dollar is rounding, not money.
        if self._limit is not None and spent.usd + most.usd > self._limit + 1e-9:
            left = f"{max(0.0, self._limit - spent.usd):.4f} are left of budget.usd {self._limit:g}"
            raise OutOfMoney(f"a call to {model} could cost {most.usd:.4f} USD, and {left}")
        if self._tokens is not None and spent.tokens + most.tokens > self._tokens:
            left = f"{max(0, self._tokens - spent.tokens):,} are left of budget.llm_tokens {self._tokens:,}"
            raise OutOfMoney(f"a call to {model} could take {most.tokens:,} tokens, and {left}")

    def settle(self, call: Call, usage: Usage, seconds: float, fault: str = "") -> None:
        """Replace the reserved cost by what the call really cost."""
        with self._lock, self._log.alone():
            self._charge(call.role, usage - call.usage)
            self._in_flight.pop(call.number, None)
            update = {"usage": usage, "settled": True, "seconds": seconds, "fault": fault}
            self._log.log(call.model_copy(update=update))

    def log_cached(self, role: Role, model: str) -> None:
        """Log an answer that came from the disk and cost nothing."""
        with self._lock, self._log.alone():
            call = self._numbered(role, model, Usage(cached=1)).model_copy(update={"settled": True})
            self._charge(role, call.usage)
            self._log.log(call)

    @property
    def used_up(self) -> str:
        """The limit that calls have used up which are over, in words; empty where there is none."""
        with self._lock:
            paid = self._total() - sum(self._in_flight.values(), Usage())
        if self._limit is not None and paid.usd > 0 and paid.usd >= self._limit:
            return f"the budget of {self._limit:g} USD"
        if self._tokens is not None and paid.tokens >= self._tokens:
            return f"the budget of {self._tokens:,} LLM tokens"
        return ""

    @property
    def usage(self) -> dict[Role, Usage]:
        """Of the whole run, by role; calls in flight count at the most they can cost."""
        with self._lock:
            used = dict(self._usage)
        for role, beside in self._elsewhere().items():
            used[role] = used.get(role, Usage()) + beside
        return used

    @property
    def spend(self) -> Spend:
        """LLM tokens and money of the whole run."""
        with self._lock:
            total = self._total()
        return Spend(llm_tokens=total.tokens, usd=total.usd)

    def _total(self) -> Usage:
        return sum((*self._usage.values(), *self._elsewhere().values()), Usage())

    def _charge(self, role: Role, usage: Usage) -> None:
        self._usage[role] = self._usage.get(role, Usage()) + usage

    def _numbered(self, role: Role, model: str, usage: Usage) -> Call:
        call = Call(number=self._next, role=role, model=model, usage=usage)
        self._next += 1
        return call
