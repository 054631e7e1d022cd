"""Hands out the engine's slots."""

import asyncio
import time
from bisect import bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field

from doherty_service._errors import DeadlinePassedError, OverloadedError, ServiceError
from doherty_service.admission._pace import Pace
from doherty_service.admission._promises import Promise, Promises
from doherty_service.admission._ticket import Priority, Ticket

_SOONEST_SECONDS = 0.05
"""Nobody is told to come back sooner."""

_ENOUGH_SAMPLES = 20
"""With fewer recent answers than these, nobody is refused for its deadline."""

_CAUTION = 0.75
"""A promised time assumes of every answer before it that it takes as long as this share of them at the most."""

_MARGIN = 0.15
"""Of an answer's time: so much later than expected one is told to come back. The place is kept, and may come late."""

_SHORTLY_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class Slot:
    """A slot of the engine that a request has, until `Admission.release`."""

    began: float
    """When it was had, by `time.monotonic()`."""
    first_token: float | None = None
    """When its first token came, by `time.monotonic()`."""


@dataclass(slots=True, eq=False)
class _Waiter:
    ticket: Ticket
    since: float
    """When it came first: one that was refused, and comes back as it was told, stands where it would have stood."""
    admitted: asyncio.Future[Slot] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Admission:
    """Who runs and who waits: first in, first out within a priority; batch gives way when the queue is full.

    The bounds are those of the running requests (the engine's slots), of the queued ones, and of the bytes of their
    prompts. It serves one start of the engine; what it has learned and promised is handed to the next one.
    """

    def __init__(  # noqa: PLR0913 - three bounds, and three things that outlive it
        self,
        slots: int,
        max_queued: int,
        max_queued_bytes: int,
        *,
        pace: Pace,
        promises: Promises,
        refusals: Counter[str],
    ) -> None:
        """All slots are free at first; refusals are counted by their reason."""
        self.slots = slots
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._pace = pace
        self._promises = promises
        self._refusals = refusals
        self._running: set[Slot] = set()
        self._last_full = time.monotonic()
        """When all slots were taken; before the first time, when it began."""
        self._queues: dict[Priority, list[_Waiter]] = {priority: [] for priority in Priority}

    @property
    def running(self) -> int:
        """How many requests have a slot."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return sum(map(len, self._queues.values()))

    @property
    def queued_bytes(self) -> int:
        """The size of the requests that wait."""
        return sum(waiter.ticket.size for queue in self._queues.values() for waiter in queue)

    async def acquire(self, ticket: Ticket) -> Slot:
        """Waits for a slot, which `release` must give back.

        Raises:
            OverloadedError: there is no room in the queue, the wait would outlast the caller's deadline, or it was the
                batch request that gave way to an interactive one.
            DeadlinePassedError: the caller's deadline passed before its turn came.
        """
        promise = self._promises.find(ticket.fingerprint(), again=ticket.again) if len(self._promises) else None
        if self._is_idle and (promise or not self._is_slot_kept):
            self._keep(promise)
            return self._take()
        waiter = _Waiter(ticket, promise.made if promise else time.monotonic())
        self._check_deadline(waiter)
        self._make_room(ticket, promise)
        self._keep(promise)
        queue = self._queues[ticket.priority]
        insort(queue, waiter, key=lambda one: one.since)
        self._grant()
        try:
            return await waiter.admitted
        except asyncio.CancelledError:
            if waiter in queue:
                queue.remove(waiter)
            elif waiter.admitted.done() and not waiter.admitted.cancelled() and not waiter.admitted.exception():
                self._free(waiter.admitted.result())
            raise

    def release(self, slot: Slot, *, completed: bool) -> None:
        """Gives a slot back, and to the next one who waits.

        Only a `completed` answer says something of how long the next one will take.
        """
        if completed:
            first_token = None if slot.first_token is None else slot.first_token - slot.began
            self._pace.note(time.monotonic() - slot.began, first_token)
        self._free(slot)

    def fail_waiting(self, error: ServiceError) -> None:
        """Ends the wait of all who wait."""
        for queue in self._queues.values():
            while queue:
                _fail(queue.pop(0), error)

    @property
    def _is_idle(self) -> bool:
        return self.running < self.slots and not self.queued

    @property
    def _is_slot_kept(self) -> bool:
        """Whether a free slot is kept for one who was told to come about now, which it is not for long."""
        if not len(self._promises):
            return False  # as nearly always, and what follows sorts the samples of the pace
        shortly = self._shortly()
        return time.monotonic() - self._last_full <= shortly and self._promises.any_due(shortly)

    def _shortly(self) -> float:
        """For how long a free slot is kept for one to whom it is promised.

        The time between two answers, and by how much an answer may end earlier than the promise assumed.
        """
        early = self._pace.held(_CAUTION) - self._pace.held(1 - _CAUTION)
        return max(self._pace.held() * (1 / self.slots + _MARGIN) + early, _SHORTLY_SECONDS)

    def _take(self) -> Slot:
        slot = Slot(time.monotonic())
        self._running.add(slot)
        return slot

    def _free(self, slot: Slot) -> None:
        if self.running == self.slots:
            self._last_full = time.monotonic()
        self._running.remove(slot)
        self._grant()

    def _grant(self) -> None:
        """Gives free slots to those who wait, but for those whose callers have given up."""
        now = time.monotonic()
        for queue in self._queues.values():
            while queue and self.running < self.slots:
                waiter = queue.pop(0)
                deadline = waiter.ticket.deadline
                if deadline is not None and deadline <= now:
                    _fail(waiter, DeadlinePassedError())
                elif not waiter.admitted.done():
                    waiter.admitted.set_result(self._take())

    def _keep(self, promise: Promise | None) -> None:
        if promise is not None:
            self._promises.keep(promise)

    def _check_deadline(self, waiter: _Waiter) -> None:
        """Refuses a request that would not get what it waits for before its deadline.

        An estimate needs answers to be made from, and with nothing queued ahead it would be a guess.
        """
        ticket = waiter.ticket
        ahead = bisect_right(self._queues[ticket.priority], waiter.since, key=lambda one: one.since)
        if ticket.priority is Priority.BATCH:
            ahead += len(self._queues[Priority.INTERACTIVE])
        if ticket.deadline is None or not ahead or self._pace.count < _ENOUGH_SAMPLES:
            return
        wait = self._departure(ahead + self._promises.made_before(waiter.since) + 1)
        work = self._pace.held() if ticket.whole else self._pace.first_token()
        allowed = ticket.deadline - time.monotonic() - work
        if wait > allowed:
            raise self._refuse(
                ticket,
                "DEADLINE_TOO_SHORT",
                f"the wait would be about {wait:.1f} s, and the deadline passes before",
                # Not at the last moment, for it is an estimate.
                wait - max(allowed, 0.0) / 2,
            )

    def _make_room(self, ticket: Ticket, promise: Promise | None) -> None:
        """Lets the youngest batch requests go for an interactive one, if that helps; or refuses."""
        reserved = 0 if promise else self._promises.expected
        stay = [
            waiter.ticket.size
            for priority in Priority
            if priority <= ticket.priority
            for waiter in self._queues[priority]
        ]
        if not self._fits(len(stay), sum(stay), ticket.size, reserved):
            raise self._refuse_full(ticket)
        while not self._fits(self.queued, self.queued_bytes, ticket.size, reserved):
            waiter = self._queues[Priority.BATCH].pop()
            if not waiter.admitted.done():  # else its caller is just leaving by itself
                waiter.admitted.set_exception(self._refuse_full(waiter.ticket))

    def _fits(self, waiting: int, waiting_bytes: int, size: int, reserved: int) -> bool:
        """Whether one more fits beside so many; one alone is never too large."""
        has_place = waiting < self._places - reserved
        return has_place and (not waiting or waiting_bytes + size <= self._max_queued_bytes)

    @property
    def _places(self) -> int:
        """How many may wait, counting those whom a free slot would take at once."""
        return self.slots + self._max_queued - self.running

    def _refuse_full(self, ticket: Ticket) -> OverloadedError:
        # Those to whom a place is promised come before.
        free = self._places - self.queued
        rank = max(1, len(self._promises) + 1 - free)
        message = f"{self.running} requests are running and {self.queued} are waiting, "
        message += (
            "which is all that this server takes" if free <= 0 else "and the rest is kept for callers told earlier"
        )
        seconds = self._departure(rank, _CAUTION) + _MARGIN * self._pace.held()
        return self._refuse(ticket, "QUEUE_FULL", message, seconds)

    def _refuse(self, ticket: Ticket, reason: str, message: str, seconds: float) -> OverloadedError:
        """Counts a refusal, and promises a place at the time that it tells."""
        self._refusals[reason] += 1
        seconds = max(_SOONEST_SECONDS, seconds)
        self._promises.make(seconds, ticket.fingerprint())
        return OverloadedError(reason, message, retry_after=seconds)

    def _departure(self, rank: int, share: float = 0.5) -> float:
        return self._pace.departure(rank, (slot.began for slot in self._running), self.slots, share)


def _fail(waiter: _Waiter, error: ServiceError) -> None:
    """Ends a wait, unless its caller is just leaving by itself."""
    if not waiter.admitted.done():
        waiter.admitted.set_exception(error)
