"""The snapshots for GetLatency. Small ones are made directly; large ones in a thread, and cached for a second."""

import asyncio
import time

from doherty_service.admission import Shares
from doherty_service.security import Caller
from doherty_service.telemetry import LatencyRecorder, Snapshot

_SMALL_WINDOW = 500
"""A snapshot of at most this many requests takes less than a millisecond."""

_FRESH_SECONDS = 1.0
_MAX_CACHED = 8
"""Maximum number of cached snapshots, each of another window. The oldest ones are dropped."""

_PAUSE_FACTOR = 4
"""After making a snapshot we pause for this many times its duration, because its thread competes with the event loop
for the GIL."""

_MAX_WAITING = 8


class Snapshots:
    """Makes snapshots of a recorder, and limits the time spent on them."""

    def __init__(self, recorder: LatencyRecorder) -> None:
        self._recorder = recorder
        self._shares = Shares(_MAX_WAITING, recorder.refusals)
        self._lock = asyncio.Lock()
        self._paused_until = 0.0
        self._cache: dict[float | None, tuple[float, Snapshot]] = {}
        """By window, with the time at which each snapshot was made; the oldest first."""

    async def take(self, window: float | None, caller: Caller) -> Snapshot:
        """Returns a snapshot of the last `window` seconds, or of everything. If it is large, it may be a second old.

        Making a large snapshot counts against the limits of the caller's key.

        Raises:
            OverloadedError: The caller already waits for too many snapshots, or exceeds a limit of its key.
            UnauthenticatedError: The key was revoked.
        """
        if self._recorder.window_size <= _SMALL_WINDOW:
            return self._recorder.snapshot(window)
        if (cached := self._fresh(window)) is not None:
            return cached
        with self._shares.take(caller.name):
            taken = caller.take()
            try:
                async with self._lock:
                    return self._fresh(window) or await self._make(window)
            finally:
                caller.give_back(taken)

    def _fresh(self, window: float | None) -> Snapshot | None:
        made_at, snapshot = self._cache.get(window, (-_FRESH_SECONDS, None))
        return snapshot if time.monotonic() - made_at < _FRESH_SECONDS else None

    async def _make(self, window: float | None) -> Snapshot:
        await asyncio.sleep(max(0.0, self._paused_until - time.monotonic()))
        start = time.monotonic()
        snapshot = await asyncio.to_thread(self._recorder.snapshot, window)
        now = time.monotonic()
        self._paused_until = now + _PAUSE_FACTOR * (now - start)
        self._cache.pop(window, None)
        self._cache[window] = now, snapshot
        while len(self._cache) > _MAX_CACHED:
            del self._cache[next(iter(self._cache))]
        return snapshot
