"""How long something has lasted while this process ran, which is what a watchdog must go by.

A process can be stopped (SIGSTOP, a paused container, a machine that swaps) and go on later. What it watches has then
had no chance to be heard, and is not to blame for the silence.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from doherty_service.telemetry._log import log_warning

_BEAT_SECONDS = 0.25

_GAP_SECONDS = 1.0
"""Without a beat for longer than this, the process, or its event loop, did not run."""

_TOLD_SECONDS = 3.0
"""Gaps so long are logged; shorter ones are common while an engine loads."""

_MOST_GAPS = 100
"""Those before them are forgotten, and count as time in which it ran."""


class AwakeClock:
    """Knows when the event loop did not run. For use on that loop alone."""

    def __init__(self) -> None:
        self._last_beat: float | None = None
        self._gaps: deque[tuple[float, float]] = deque(maxlen=_MOST_GAPS)
        """Begin and end of each, by `time.monotonic()`."""

    async def run(self) -> None:
        """Beats until it is cancelled; without it no gap is noticed."""
        try:
            while True:
                self._beat()
                await asyncio.sleep(_BEAT_SECONDS)
        finally:
            self._last_beat = None

    def seconds_since(self, mark: float) -> float:
        """The seconds from a time by `time.monotonic()` until now, without those in which the loop did not run."""
        if self._last_beat is not None:
            self._beat()  # whoever asks may be the first to run after a gap
        gone = sum(max(0.0, end - max(begun, mark)) for begun, end in self._gaps)
        return time.monotonic() - mark - gone

    async def within(self, seconds: float, doing: Coroutine[Any, Any, None]) -> None:
        """Awaits something for so long at the most, and cancels it then.

        Raises:
            TimeoutError: it took longer.
        """
        begun = time.monotonic()
        task = asyncio.ensure_future(doing)
        try:
            while not task.done():
                left = seconds - self.seconds_since(begun)
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait([task], timeout=min(left, _BEAT_SECONDS))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await task

    def _beat(self) -> None:
        now = time.monotonic()
        if self._last_beat is not None and now - self._last_beat > _GAP_SECONDS:
            self._gaps.append((self._last_beat, now))
            if now - self._last_beat > _TOLD_SECONDS:
                log_warning("stood_still", seconds=round(now - self._last_beat, 3))
        self._last_beat = now


awake: Final = AwakeClock()
"""The one of this process; its server keeps it running."""
