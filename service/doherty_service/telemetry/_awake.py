"""A clock for watchdogs, which leaves out the time during which this process did not run.

A process can be stopped and continued (SIGSTOP, a paused container, a machine that swaps). Nothing that a watchdog
watches could make progress in the meantime, so that time must not count.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from doherty_service.telemetry._log import log_warning

_HEARTBEAT_SECONDS = 0.25

_GAP_SECONDS = 0.5
"""If there was no heartbeat for longer than this, the process or its event loop did not run."""

_LOGGED_GAP_SECONDS = 3.0
"""Gaps longer than this are logged. Shorter ones are common while an engine loads."""

_MAX_GAPS = 100
"""Older gaps are forgotten and count as time in which the process ran."""


class AwakeClock:
    """Tracks when the event loop did not run. May be used on that event loop only."""

    def __init__(self) -> None:
        self._last_heartbeat: float | None = None
        self._gaps: deque[tuple[float, float]] = deque(maxlen=_MAX_GAPS)
        """Start and end of each gap, as `time.monotonic()`."""

    async def run(self) -> None:
        """Records heartbeats until it is cancelled. Gaps are detected only while this runs."""
        try:
            while True:
                self._heartbeat()
                await asyncio.sleep(_HEARTBEAT_SECONDS)
        finally:
            self._last_heartbeat = None

    def seconds_since(self, start: float) -> float:
        """Returns the seconds since `start` (a `time.monotonic()`), without those in which the loop did not run."""
        if self._last_heartbeat is not None:
            self._heartbeat()  # the caller may be the first to run after a gap
        asleep = sum(max(0.0, gap_end - max(gap_start, start)) for gap_start, gap_end in self._gaps)
        return time.monotonic() - start - asleep

    async def within(self, seconds: float, coroutine: Coroutine[Any, Any, None]) -> None:
        """Awaits a coroutine, and cancels it if it takes longer than `seconds`.

        Raises:
            TimeoutError: The coroutine took longer.
        """
        start = time.monotonic()
        task = asyncio.ensure_future(coroutine)
        try:
            while not task.done():
                left = seconds - self.seconds_since(start)
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait([task], timeout=min(left, _HEARTBEAT_SECONDS))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await task

    def _heartbeat(self) -> None:
        now = time.monotonic()
        if self._last_heartbeat is not None and now - self._last_heartbeat > _GAP_SECONDS:
            self._gaps.append((self._last_heartbeat, now))
            if now - self._last_heartbeat > _LOGGED_GAP_SECONDS:
                log_warning("stood_still", seconds=round(now - self._last_heartbeat, 3))
        self._last_heartbeat = now


awake: Final = AwakeClock()
"""The clock of this process. The server runs it."""
