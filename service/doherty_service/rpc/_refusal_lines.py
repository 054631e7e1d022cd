"""Refusals in the log: a line each while there are few, and a sum each second beyond that."""

import asyncio
from collections import Counter

from doherty_service.telemetry import LineLimit, RequestRecord, log_event

_REASONS = frozenset(
    {
        "COUNTING_FULL",
        "DEADLINE_TOO_SHORT",
        "DRAINING",
        "ENGINE_RESTARTING",
        "KEY_LIMIT",
        "QUEUE_FULL",
        "TOO_MANY_CALLS",
        "WARMING_UP",
    }
)
"""Those of requests for which no work was done."""

_LINES_A_SECOND = 20
_SUM_SECONDS = 1.0


class RefusalLines:
    """Decides which refusals have a line of their own, and sums up the others."""

    def __init__(self) -> None:
        self._limit = LineLimit(_LINES_A_SECOND, _LINES_A_SECOND)
        self._sums: Counter[tuple[str, str, str]] = Counter()
        """By rpc, reason and name of the key."""
        self._alarm: asyncio.TimerHandle | None = None

    def sums_up(self, record: RequestRecord) -> bool:
        """Whether a request is a refusal that is told in a sum, and has no line of its own."""
        if record.reason not in _REASONS or self._limit.allows():
            return False
        self._sums[record.rpc, record.reason, record.caller.name] += 1
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(_SUM_SECONDS, self.tell)
        return True

    def tell(self) -> None:
        """Writes the sums of now."""
        sums, self._sums = self._sums, Counter()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for (rpc, reason, key), count in sums.items():
            log_event("refusals", rpc=rpc, reason=reason, **({"key": key} if key else {}), count=count)
