"""What GetLatency sums up: at once where that is little, else in a thread, and kept for a moment."""

import asyncio
import time

from doherty_service.admission import Shares
from doherty_service.security import Caller
from doherty_service.telemetry import LatencyRecorder, Snapshot

_FEW = 500
"""Requests that are summed up in less than a millisecond."""

_FRESH_SECONDS = 1.0
_MOST_KEPT = 8
"""Snapshots, each of another window; beyond that the oldest ones go."""

_REST = 4
"""After a snapshot was made, no other one is for so many times as long: it competes with the event loop for Python."""

_MOST_WAITING = 8


class Snapshots:
    """Snapshots of a recorder, of any window."""

    def __init__(self, recorder: LatencyRecorder) -> None:
        self._recorder = recorder
        self._shares = Shares(_MOST_WAITING, recorder.refusals)
        self._turn = asyncio.Lock()
        self._rest_until = 0.0
        self._kept: dict[float | None, tuple[float, Snapshot]] = {}
        """By window, with the time at which each was made; the oldest first."""

    async def take(self, window: float | None, caller: Caller) -> Snapshot:
        """The last `window` seconds, or all that is kept; of many requests it may be a second old.

        What is made for a caller counts against the limits of its key.

        Raises:
            OverloadedError: the caller has too many in the making, or is beyond a limit of its key.
            UnauthenticatedError: the key was revoked.
        """
        if self._recorder.window_size <= _FEW:
            return self._recorder.snapshot(window)
        if (known := self._fresh(window)) is not None:
            return known
        with self._shares.take(caller.name):
            taken = caller.take()
            try:
                async with self._turn:
                    return self._fresh(window) or await self._make(window)
            finally:
                caller.give_back(taken)

    def _fresh(self, window: float | None) -> Snapshot | None:
        made, snapshot = self._kept.get(window, (-_FRESH_SECONDS, None))
        return snapshot if time.monotonic() - made < _FRESH_SECONDS else None

    async def _make(self, window: float | None) -> Snapshot:
        await asyncio.sleep(max(0.0, self._rest_until - time.monotonic()))
        begun = time.monotonic()
        snapshot = await asyncio.to_thread(self._recorder.snapshot, window)
        now = time.monotonic()
        self._rest_until = now + _REST * (now - begun)
        self._kept.pop(window, None)
        self._kept[window] = now, snapshot
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return snapshot
