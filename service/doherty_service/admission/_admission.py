"""Decides which requests run, which wait, and which are refused."""

import asyncio
import math
import time
from collections import Counter

from doherty_service._errors import DeadlinePassedError, OverloadedError, ServiceError
from doherty_service.admission._pace import UPDATE_SECONDS, Pace
from doherty_service.admission._queue import WaitQueue
from doherty_service.admission._ticket import QueueBounds, Ticket

_SOONEST_RETRY_SECONDS = 0.05

_LONGEST_AGE_SECONDS = 60.0
"""Maximum time since the first attempt that a caller is credited with, whatever it claims."""

_CAUTION = 2.0
"""On arrival, the deadline must allow for this multiple of the estimated wait: a late refusal costs the caller time."""

_SENDING_SECONDS = 0.02
"""Time reserved for sending the answer to the caller."""

_ARRIVAL_CHANCE, _SLOT_CHANCE = 0.7, 0.5
"""Waiting reduces the probability that a request is answered in time. A request is refused if less than this share of
the initial probability is left: on arrival after the estimated wait, and after the real wait when it gets a slot."""

_MIN_CHANCE = 0.1
"""A request with a smaller probability to be answered in time gets no slot that others could use."""


class Admission:
    """Assigns the slots of one start of the engine.

    A request gets a free slot at once. If there is none, it waits, unless the wait would be too long for its deadline
    or for `QueueBounds`. Its deadline is checked again when it gets a slot.
    """

    def __init__(self, bounds: QueueBounds, *, pace: Pace, refusals: Counter[str]) -> None:
        """All slots of `pace` are free at first. `refusals` counts refusals by reason."""
        self.slots = pace.slots
        self._bounds = bounds
        self._pace = pace
        self._refusals = refusals
        self._queue = WaitQueue(bounds, pace)
        self._idle_update: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """The number of requests that have a slot."""
        return self._pace.running

    @property
    def queued(self) -> int:
        """The number of waiting requests."""
        return self._queue.all.count

    @property
    def queued_bytes(self) -> int:
        """The size of the waiting requests in bytes."""
        return self._queue.all.bytes

    def enter(self, ticket: Ticket) -> bool:
        """Gives a request a slot, or puts it into the queue.

        Call `release` when the slot is free again, or `leave` if it was not used. If the request waits, await
        `ticket.admitted`, and call `leave` if nobody waits for it any more.

        Returns:
            Whether the request has a slot. If not, `ticket.admitted` is set.

        Raises:
            OverloadedError: The wait would be too long for the caller or for the queue, or the queue is full.
        """
        self._pace.update()
        time_left = _seconds_left(ticket) - _SENDING_SECONDS
        ticket.first_chance = self._pace.chance(ticket, time_left)
        ticket.tokens = self._pace.lengths.mean(ticket.max_tokens)
        ticket.since = time.monotonic() - min(ticket.tried_for, _LONGEST_AGE_SECONDS)
        self._queue.find_line(ticket, time_left - self._pace.needed(ticket))
        if self.running < self.slots and not self.queued:
            if 2 * self.running > self.slots and ticket.first_chance < _MIN_CHANCE:
                raise self._refuse_late(ticket, 0.0)
            self._take_slot(ticket)
            return True
        wait = self._wait(ticket)
        if not self._is_likely(ticket, time_left - _CAUTION * wait, _ARRIVAL_CHANCE):
            raise self._refuse_late(ticket, wait)
        ticket.admitted = asyncio.get_running_loop().create_future()
        self._queue.add(ticket)
        self._make_room(ticket, wait)
        return False

    def leave(self, ticket: Ticket) -> None:
        """Removes a request from the queue, or frees the slot that it got and has not used."""
        admitted, ticket.admitted = ticket.admitted, None
        if admitted is None:
            return
        if ticket.waits:
            self._queue.remove(ticket)
        elif not admitted.cancelled() and admitted.exception() is None:
            self.release(ticket, None)

    def release(self, ticket: Ticket, tokens: int | None, *, ended: bool = False) -> None:
        """Frees a slot, and gives it to the next waiting request.

        Args:
            ticket: The request that had the slot.
            tokens: The number of generated tokens; None if the answer must not affect the estimates.
            ended: Whether the answer ended by itself, rather than at a limit or because its caller left.
        """
        self._queue.settle(ticket, self._pace.end(ticket, tokens, ended=ended))
        while self.queued and self.running < self.slots:
            self._grant(self._queue.first())
        if not self.running and self._idle_update is None:
            self._update_soon()

    def fail_waiting(self, error: ServiceError) -> None:
        """Ends all waiting requests with an error."""
        while self.queued:
            ticket = self._queue.first()
            self._queue.remove(ticket)
            _fail(ticket, error.copy())

    def _update_soon(self) -> None:
        self._idle_update = asyncio.get_running_loop().call_later(UPDATE_SECONDS, self._update_while_idle)

    def _update_while_idle(self) -> None:
        """Updates the estimates, so that the first request after a pause need not wait for the update."""
        self._idle_update = None
        if self.running:
            return  # `release` calls `_update_soon` again
        self._pace.update()
        if not self._pace.is_current:  # a request that came and left in the meantime updated them last
            self._update_soon()

    def _take_slot(self, ticket: Ticket) -> None:
        self._pace.begin(ticket)
        self._queue.charge(ticket)

    def _grant(self, ticket: Ticket) -> None:
        """Gives a slot to a waiting request, if it can still be answered in time."""
        admitted = ticket.admitted
        time_left = _seconds_left(ticket)
        if admitted is None or admitted.done():  # its caller is leaving right now
            self._queue.remove(ticket)
        elif time_left <= 0:
            self._queue.remove(ticket)
            admitted.set_exception(DeadlinePassedError())
        elif not self._is_likely(ticket, time_left - _SENDING_SECONDS, _SLOT_CHANCE):
            admitted.set_exception(self._refuse_late(ticket, self._wait(ticket)))
        else:
            self._take_slot(ticket)
            self._queue.remove(ticket)
            admitted.set_result(None)

    def _wait(self, ticket: Ticket) -> float:
        """Estimates the seconds until a request gets a slot."""
        seconds_each = self._pace.seconds(self._queue.all.tokens / self.queued if self.queued else ticket.tokens)
        return self._pace.wait(self._queue.work_before(ticket) / seconds_each, seconds_each)

    def _is_likely(self, ticket: Ticket, time_left: float, share: float) -> bool:
        """Whether a request that gets a slot with this time left keeps this share of its initial probability."""
        return self._pace.chance(ticket, time_left) >= max(share * ticket.first_chance, _MIN_CHANCE)

    def _make_room(self, newcomer: Ticket, wait: float) -> None:
        """Refuses requests until the queue is within its bounds.

        Raises:
            OverloadedError: The new request itself is refused.
        """
        youngest = newcomer.line.tickets[-1]
        longest_wait = self._wait(youngest)
        if longest_wait > self._bounds.seconds:
            self._evict(youngest, newcomer, longest_wait)
        while self._queue.is_too_full:
            self._evict(self._queue.victim(), newcomer, wait)

    def _evict(self, ticket: Ticket, newcomer: Ticket, wait: float) -> None:
        """Refuses a request for which the queue has no room.

        Its caller is asked to retry after half of the wait. By then the request is older than those that arrived in the
        meantime, and is queued before them.
        """
        message = f"{self.running} requests are running and {self.queued - 1} are waiting, for about {wait:.1f} s"
        seconds = max(_SOONEST_RETRY_SECONDS, self._pace.wait(0.0, 0.0), wait / 2)
        refusal = self._refuse(ticket, "QUEUE_FULL", message, seconds)
        if ticket is newcomer:
            ticket.admitted = None
            raise refusal
        _fail(ticket, refusal)

    def _refuse_late(self, ticket: Ticket, wait: float) -> OverloadedError:
        """Refuses a request that cannot be answered in time."""
        time_left = _seconds_left(ticket)
        needed = self._pace.needed(ticket)
        message = (
            f"the wait would be about {wait:.1f} s and the answer takes about {needed:.1f} s, "
            f"and the caller's deadline passes in {time_left:.1f} s"
        )
        spare = time_left - needed
        seconds = max(_SOONEST_RETRY_SECONDS, wait - max(spare, 0.0))
        is_pointless = seconds > spare
        if spare < 0:
            # If prompts differ much, a short answer may be in time although it is not expected to be.
            is_pointless = self._pace.chance(ticket, time_left - seconds) < _MIN_CHANCE
        return self._refuse(ticket, "DEADLINE_TOO_SHORT", message, seconds, is_pointless=is_pointless)

    def _refuse(
        self, ticket: Ticket, reason: str, message: str, seconds: float, *, is_pointless: bool = False
    ) -> OverloadedError:
        """Removes and counts a request; returns its error.

        Args:
            ticket: The request.
            reason: The reason of the error.
            message: What the caller reads.
            seconds: After how many seconds it should retry.
            is_pointless: Whether such a retry would hardly be answered in time.
        """
        self._queue.remove(ticket)
        self._refusals[reason] += 1
        return OverloadedError(reason, message, retry_after=seconds, is_pointless=is_pointless)


def _fail(ticket: Ticket, error: ServiceError) -> None:
    """Ends a wait with an error, unless the caller is leaving right now."""
    if ticket.admitted is not None and not ticket.admitted.done():
        ticket.admitted.set_exception(error)


def _seconds_left(ticket: Ticket) -> float:
    """Seconds until the caller's deadline."""
    return math.inf if ticket.deadline is None else ticket.deadline - time.monotonic()
