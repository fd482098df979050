"""What the calls of a run to the external LLM cost, written down before each call and after it."""

import threading
from collections.abc import Iterator

from agent.errors import OutOfMoney
from agent.protocols import CallLog
from agent.records import Role
from agent.rounds import Call, Spend, Usage


class Notebook(list[Call]):
    """A log of calls that is on no disk: for what belongs to no run. Satisfies `agent.protocols.CallLog`."""

    def calls(self) -> list[Call]:
        return list(self)

    def log(self, call: Call) -> None:
        self.append(call)


class Account:
    """One for all roles of a run. What an earlier process spent comes back from the log, a killed call at its most.

    Args:
        log: where a call stands from before it is made.
        limit: USD that the whole run may spend. None: no limit.
    """

    def __init__(self, log: CallLog, limit: float | None = None) -> None:
        self._log = log
        self._limit = limit
        self._lock = threading.Lock()
        self._charged = {call.number: call for call in log.calls()}
        self._usd = sum(call.usage.usd for call in self._charged.values())
        self._next = max(self._charged, default=0) + 1

    def open(self, role: Role, model: str, most: Usage) -> Call:
        """Charges a call at the most it can cost, before it is made.

        Raises:
            OutOfMoney: that is more than what is left; nothing is charged.
        """
        with self._lock:
            # A billionth of a dollar is rounding, not money.
            if self._limit is not None and self._usd + most.usd > self._limit + 1e-9:
                left = max(0.0, self._limit - self._usd)
                raise OutOfMoney(
                    f"a call to {model} could cost {most.usd:.4f} USD, and {left:.4f} are left of budget.usd "
                    f"{self._limit:g}"
                )
            call = Call(number=self._next, role=role, model=model, usage=most)
            self._next += 1
            return self._write(call)

    def settle(self, call: Call, usage: Usage, seconds: float, fault: str = "") -> None:
        """Charges what the call really cost instead."""
        with self._lock:
            self._write(call.model_copy(update={"usage": usage, "settled": True, "seconds": seconds, "fault": fault}))

    def cached(self, role: Role, model: str) -> None:
        """Notes an answer that came from the disk and cost nothing."""
        with self._lock:
            self._write(Call(number=self._next, role=role, model=model, usage=Usage(cached=1), settled=True))
            self._next += 1

    @property
    def usage(self) -> dict[Role, Usage]:
        """Of the whole run, by role; calls that are still out at their most."""
        with self._lock:
            return dict(self._by_role())

    @property
    def spend(self) -> Spend:
        """LLM tokens and money of the whole run."""
        total = sum(self.usage.values(), Usage())
        return Spend(llm_tokens=total.input_tokens + total.output_tokens, usd=total.usd)

    def _write(self, call: Call) -> Call:
        before = self._charged.get(call.number)
        self._usd += call.usage.usd - (before.usage.usd if before else 0.0)
        self._charged[call.number] = call
        self._log.log(call)
        return call

    def _by_role(self) -> Iterator[tuple[Role, Usage]]:
        calls = list(self._charged.values())
        for role in dict.fromkeys(call.role for call in calls):
            yield role, sum((call.usage for call in calls if call.role == role), Usage())
