"""Decides who may use the engine, and who waits or is refused: before any work is done for a request."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum

from doherty_service._errors import OverloadedError, ServiceError

_FIRST_GUESS_SECONDS = 1.0
"""How long an answer takes, while none has ended yet."""

_SOONEST_SECONDS = 0.05
"""Nobody is told to come back sooner."""


class Priority(IntEnum):
    """Who goes first; lower goes first."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(slots=True, eq=False)
class _Waiter:
    size: int
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Admission:
    """Hands out the engine's slots: first in, first out within a priority; batch gives way when the queue is full.

    The bounds are those of the running requests (the engine's slots), of the queued ones, and of the bytes of their
    prompts.
    """

    def __init__(self, slots: int, max_queued: int, max_queued_bytes: int) -> None:
        """All slots are free at first."""
        self.slots = slots
        self.running = 0
        self.refusals = 0
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._queues: dict[Priority, deque[_Waiter]] = {priority: deque() for priority in Priority}
        self._seconds: deque[float] = deque(maxlen=100)

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return sum(map(len, self._queues.values()))

    async def acquire(self, priority: Priority, size: int) -> float:
        """Waits for a slot, which `release` must give back; `size` is the request's in bytes.

        Returns the time by `time.monotonic()` at which the slot was had, for `release`.

        Raises:
            OverloadedError: the queue has no room for the request, or it was the batch request that gave way to an
                interactive one.
        """
        if self.running < self.slots and not self.queued:
            self.running += 1
            return time.monotonic()
        try:
            self._make_room(priority, size)
        except OverloadedError:
            self.refusals += 1
            raise
        waiter = _Waiter(size)
        queue = self._queues[priority]
        queue.append(waiter)
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter in queue:
                queue.remove(waiter)
            elif waiter.admitted.done() and not waiter.admitted.cancelled() and not waiter.admitted.exception():
                self._free()
            raise
        return time.monotonic()

    def release(self, acquired: float, *, completed: bool) -> None:
        """Gives a slot back, and to the next one who waits.

        Only the time of a `completed` answer says something of how long the next one will take.
        """
        if completed:
            self._seconds.append(time.monotonic() - acquired)
        self._free()

    def fail_waiting(self, error: ServiceError) -> None:
        """Ends the wait of all who wait."""
        for queue in self._queues.values():
            while queue:
                _fail(queue.popleft(), error)

    def _free(self) -> None:
        self.running -= 1
        for queue in self._queues.values():
            while queue:
                waiter = queue.popleft()
                if not waiter.admitted.done():
                    self.running += 1
                    waiter.admitted.set_result(None)
                    return

    def _make_room(self, priority: Priority, size: int) -> None:
        """Lets the youngest batch requests go for an interactive one, if that helps; or refuses."""
        stays = [waiter.size for waiter in self._queues[Priority.INTERACTIVE]]
        batch = self._queues[Priority.BATCH]
        if priority is Priority.BATCH:
            stays += [waiter.size for waiter in batch]
        if not self._fits(len(stays), sum(stays), size):
            raise self._refusal()
        while priority is Priority.INTERACTIVE and not self._fits(
            self.queued, sum(stays) + sum(waiter.size for waiter in batch), size
        ):
            if _fail(batch.pop(), self._refusal()):
                self.refusals += 1

    def _fits(self, waiting: int, waiting_bytes: int, size: int) -> bool:
        """Whether one more fits beside so many; one alone is never too large."""
        return waiting < self._max_queued and (not waiting or waiting_bytes + size <= self._max_queued_bytes)

    def _refusal(self) -> OverloadedError:
        return OverloadedError(
            "QUEUE_FULL",
            f"{self.running} requests are running and {self.queued} are waiting, which is all that this server takes",
            retry_after=self._seconds_to_room(),
        )

    def _seconds_to_room(self) -> float:
        """After how long the queue has likely moved up by one."""
        if not self._seconds:
            return _FIRST_GUESS_SECONDS
        median = sorted(self._seconds)[len(self._seconds) // 2]
        return max(_SOONEST_SECONDS, median / self.slots)


def _fail(waiter: _Waiter, error: ServiceError) -> bool:
    """Ends a wait, unless its caller is just leaving by itself."""
    if waiter.admitted.done():
        return False
    waiter.admitted.set_exception(error)
    return True
