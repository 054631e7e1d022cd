"""Frequent requests in the log: one line each while there are few; beyond that, one summary line per second."""

import asyncio
from collections import Counter
from collections.abc import Callable

from doherty_service.telemetry import LineLimit, RequestRecord, log_event, log_warning

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
_UNAUTHENTICATED_BURST = 100
_UNAUTHENTICATED_PER_SECOND = 10.0
_SUMMARY_SECONDS = 1.0


class UnauthenticatedLines:
    """Limits the lines for calls without a valid key: a caller without a key must not fill the log."""

    def __init__(self) -> None:
        self._limit = LineLimit(_UNAUTHENTICATED_BURST, _UNAUTHENTICATED_PER_SECOND)
        self._summary = _Summary(self._write_summary)

    def absorb(self, record: RequestRecord) -> bool:
        """Counts a request for the summary if it has no valid key and exceeds the limit; returns whether it did."""
        if not record.is_unauthenticated or self._limit.allows():
            return False
        self._summary.schedule()
        return True

    def flush(self) -> None:
        """Writes the summary line."""
        self._summary.flush()

    def _write_summary(self) -> None:
        if suppressed := self._limit.take_suppressed():
            log_warning("lines_suppressed", lines=suppressed)


class RefusalLines:
    """Decides which refusals get their own line, and counts the others."""

    def __init__(self) -> None:
        self._limit = LineLimit(_LINES_PER_SECOND, _LINES_PER_SECOND)
        self._counts: Counter[tuple[str, str, str]] = Counter()
        """By RPC, reason and name of the key."""
        self._summary = _Summary(self._write_summary)

    def absorb(self, record: RequestRecord) -> bool:
        """Counts a request for the summary if it was refused and exceeds the limit; returns whether it did."""
        if record.reason not in _REASONS or self._limit.allows():
            return False
        self._counts[record.rpc, record.reason, record.caller.name] += 1
        self._summary.schedule()
        return True

    def flush(self) -> None:
        """Writes the summary lines."""
        self._summary.flush()

    def _write_summary(self) -> None:
        counts, self._counts = self._counts, Counter()
        for (rpc, reason, key), count in counts.items():
            log_event("refusals", rpc=rpc, reason=reason, **({"key": key} if key else {}), count=count)


class _Summary:
    """Writes summary lines a second after the first request that they count."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self) -> None:
        """Writes the lines in a second, unless that is already planned."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SUMMARY_SECONDS, self.flush)

    def flush(self) -> None:
        """Writes the lines now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write()
