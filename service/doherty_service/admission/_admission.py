"""Hands out the engine's slots."""

import asyncio
import time
from bisect import bisect_right, insort
from collections import Counter

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
        self._running: set[Ticket] = set()
        self._last_full = time.monotonic()
        """When all slots were taken; before the first time, when it began."""
        self._queues: dict[Priority, list[Ticket]] = {priority: [] for priority in Priority}

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
        return sum(ticket.size for queue in self._queues.values() for ticket in queue)

    def try_take(self, ticket: Ticket) -> bool:
        """Takes a slot if one is free and nobody waits for it; `release` must give it back."""
        if not self._is_idle:
            return False
        if self._promises.open:
            promise = self._find_promise(ticket)
            if promise is None and self._is_slot_kept:
                return False
            self._keep(promise)
        self._take(ticket)
        return True

    async def acquire(self, ticket: Ticket) -> None:
        """Waits for a slot, which `release` must give back.

        Raises:
            OverloadedError: there is no room in the queue, the wait would outlast the caller's deadline, or it was the
                batch request that gave way to an interactive one.
            DeadlinePassedError: the caller's deadline passed before its turn came.
        """
        if self.try_take(ticket):
            return
        promise = self._find_promise(ticket) if self._promises.open else None
        ticket.since = promise.made if promise else time.monotonic()
        self._check_deadline(ticket)
        self._make_room(ticket, promise)
        self._keep(promise)
        admitted = ticket.admitted = asyncio.get_running_loop().create_future()
        queue = self._queues[ticket.priority]
        insort(queue, ticket, key=lambda waiting: waiting.since)
        self._grant()
        try:
            await admitted
        except asyncio.CancelledError:
            if ticket in queue:
                queue.remove(ticket)
            elif admitted.done() and not admitted.cancelled() and not admitted.exception():
                self._free(ticket)
            raise

    def release(self, ticket: Ticket, *, completed: bool, first_token: float | None = None) -> None:
        """Gives a slot back, and to the next request that waits.

        Args:
            ticket: The request that had the slot.
            completed: Whether its answer is complete: only then does it say how long the next one will take.
            first_token: When its first token came, by `time.monotonic()`.
        """
        if completed:
            self._pace.note(
                time.monotonic() - ticket.began, None if first_token is None else first_token - ticket.began
            )
        self._free(ticket)

    def fail_waiting(self, error: ServiceError) -> None:
        """Ends the wait of all who wait."""
        for queue in self._queues.values():
            while queue:
                _fail(queue.pop(0), error.copy())

    @property
    def _is_idle(self) -> bool:
        return self.running < self.slots and not self.queued

    @property
    def _is_slot_kept(self) -> bool:
        """Whether a free slot is kept for one who was told to come about now, which it is not for long."""
        shortly = self._shortly()
        return time.monotonic() - self._last_full <= shortly and self._promises.any_due(shortly)

    def _shortly(self) -> float:
        """For how long a free slot is kept for one to whom it is promised.

        The time between two answers, and by how much an answer may end earlier than the promise assumed.
        """
        early = self._pace.held(_CAUTION) - self._pace.held(1 - _CAUTION)
        return max(self._pace.held() * (1 / self.slots + _MARGIN) + early, _SHORTLY_SECONDS)

    def _take(self, ticket: Ticket) -> None:
        ticket.began = time.monotonic()
        self._running.add(ticket)

    def _free(self, ticket: Ticket) -> None:
        if self.running == self.slots:
            self._last_full = time.monotonic()
        self._running.remove(ticket)
        if self.queued:
            self._grant()

    def _grant(self) -> None:
        """Gives free slots to those who wait, but for those whose callers have given up."""
        now = time.monotonic()
        for queue in self._queues.values():
            while queue and self.running < self.slots:
                ticket = queue.pop(0)
                if ticket.deadline is not None and ticket.deadline <= now:
                    _fail(ticket, DeadlinePassedError())
                elif ticket.admitted is not None and not ticket.admitted.done():
                    self._take(ticket)
                    ticket.admitted.set_result(None)

    def _find_promise(self, ticket: Ticket) -> Promise | None:
        return self._promises.find(ticket.fingerprint, again=ticket.again)

    def _keep(self, promise: Promise | None) -> None:
        if promise is not None:
            self._promises.keep(promise)

    def _check_deadline(self, ticket: Ticket) -> None:
        """Refuses a request that would not get what it waits for before its deadline.

        An estimate needs answers to be made from, and with nothing queued ahead it would be a guess.
        """
        ahead = bisect_right(self._queues[ticket.priority], ticket.since, key=lambda waiting: waiting.since)
        if ticket.priority is Priority.BATCH:
            ahead += len(self._queues[Priority.INTERACTIVE])
        if ticket.deadline is None or not ahead or self._pace.count < _ENOUGH_SAMPLES:
            return
        wait = self._departure(ahead + self._promises.made_before(ticket.since) + 1)
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
            waiting.size for priority in Priority if priority <= ticket.priority for waiting in self._queues[priority]
        ]
        if not self._fits(len(stay), sum(stay), ticket.size, reserved):
            raise self._refuse_full(ticket)
        while not self._fits(self.queued, self.queued_bytes, ticket.size, reserved):
            youngest = self._queues[Priority.BATCH].pop()
            _fail(youngest, self._refuse_full(youngest))

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
        self._promises.make(seconds, ticket.fingerprint)
        return OverloadedError(reason, message, retry_after=seconds)

    def _departure(self, rank: int, share: float = 0.5) -> float:
        return self._pace.departure(rank, (ticket.began for ticket in self._running), self.slots, share)


def _fail(ticket: Ticket, error: ServiceError) -> None:
    """Ends a wait, unless its caller is just leaving by itself."""
    if ticket.admitted is not None and not ticket.admitted.done():
        ticket.admitted.set_exception(error)
