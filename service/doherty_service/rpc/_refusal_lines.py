"""Refusals in the log: one line each while there are few; beyond that, one summary line per second."""

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
"""Error reasons of requests for which no work was done."""

_LINES_PER_SECOND = 20
_SUMMARY_SECONDS = 1.0


class RefusalLines:
    """Decides which refusals get their own line, and counts the others."""

    def __init__(self) -> None:
        self._limit = LineLimit(_LINES_PER_SECOND, _LINES_PER_SECOND)
        self._counts: Counter[tuple[str, str, str]] = Counter()
        """By RPC, reason and name of the key."""
        self._alarm: asyncio.TimerHandle | None = None

    def absorb(self, record: RequestRecord) -> bool:
        """Counts a request for the summary, if it is a refusal beyond the limit; returns whether it did."""
        if record.reason not in _REASONS or self._limit.allows():
            return False
        self._counts[record.rpc, record.reason, record.caller.name] += 1
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(_SUMMARY_SECONDS, self.flush)
        return True

    def flush(self) -> None:
        """Writes the summary lines."""
        counts, self._counts = self._counts, Counter()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for (rpc, reason, key), count in counts.items():
            log_event("refusals", rpc=rpc, reason=reason, **({"key": key} if key else {}), count=count)
