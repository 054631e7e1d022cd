"""Decides which requests run, which wait, and which are refused."""

import asyncio
import math
import time
from collections import Counter

from doherty_service._errors import DeadlinePassedError, OverloadedError, ServiceError
from doherty_service.admission._pace import Pace
from doherty_service.admission._queue import WaitQueue
from doherty_service.admission._ticket import QueueBounds, Ticket

_SOONEST_RETRY_SECONDS = 0.05

_LONGEST_AGE_SECONDS = 60.0
"""A caller that says that it has been trying for longer counts as if for so long."""

_CAUTION = 2.0
"""On arrival, a deadline must allow for so many times the estimated wait: who is refused later has waited in vain."""

_SENDING_SECONDS = 0.02
"""What an answer takes to its caller, and a little more."""

_ARRIVAL_CHANCE, _SLOT_CHANCE = 0.7, 0.5
"""A request is refused if waiting makes it less likely to be answered in time than this part of what its chance was on
arrival: by the estimated wait when it arrives, by the true wait when it would get its slot."""

_LEAST_CHANCE = 0.1
"""A request that is less likely to be answered in time gets no slot that others could use."""


class Admission:
    """Hands out the slots of one start of the engine.

    A request gets a free slot at once. If there is none, it waits, unless the wait would be too long: for its caller,
    by its deadline, or for anybody, by `QueueBounds`. When it would get its slot, its deadline is looked at again.
    """

    def __init__(self, bounds: QueueBounds, *, pace: Pace, refusals: Counter[str]) -> None:
        """All slots of `pace` are free at first. Refusals are counted by reason."""
        self.slots = pace.slots
        self._bounds = bounds
        self._pace = pace
        self._refusals = refusals
        self._queue = WaitQueue(bounds, pace)

    @property
    def running(self) -> int:
        """How many requests have a slot."""
        return self._pace.running

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self._queue.all.count

    @property
    def queued_bytes(self) -> int:
        """The size of the requests that wait."""
        return self._queue.all.bytes

    def enter(self, ticket: Ticket) -> bool:
        """Gives a request a slot, or puts it into the queue.

        A slot must be given back with `release`, or with `leave` if it was not used. A request that waits awaits
        `ticket.admitted`, and calls `leave` if it stops waiting.

        Returns:
            Whether the request has a slot. If not, `ticket.admitted` is set.

        Raises:
            OverloadedError: the wait would be too long for the caller or for the queue, or the queue is full.
        """
        self._pace.look()
        left = _seconds_left(ticket) - _SENDING_SECONDS
        ticket.first_chance = self._pace.chance(ticket, left)
        ticket.tokens = self._pace.lengths.mean(ticket.most_tokens)
        ticket.since = time.monotonic() - min(ticket.tried_for, _LONGEST_AGE_SECONDS)
        self._queue.find_line(ticket, left - self._pace.need(ticket))
        if self.running < self.slots and not self.queued:
            if 2 * self.running > self.slots and ticket.first_chance < _LEAST_CHANCE:
                raise self._refuse_late(ticket, 0.0)
            self._take_slot(ticket)
            return True
        wait = self._wait(ticket)
        if not self._is_likely(ticket, left - _CAUTION * wait, _ARRIVAL_CHANCE):
            raise self._refuse_late(ticket, wait)
        ticket.admitted = asyncio.get_running_loop().create_future()
        self._queue.add(ticket)
        self._make_room(ticket, wait)
        return False

    def leave(self, ticket: Ticket) -> None:
        """Takes a request out of the queue, or back a slot that it was given and has not used."""
        admitted, ticket.admitted = ticket.admitted, None
        if admitted is None:
            return
        if ticket.waits:
            self._queue.remove(ticket)
        elif not admitted.cancelled() and admitted.exception() is None:
            self.release(ticket, None)

    def release(self, ticket: Ticket, tokens: int | None, *, ended: bool = False) -> None:
        """Gives a slot back, and to the next request that waits.

        Args:
            ticket: The request that had the slot.
            tokens: How many tokens were generated; None if nothing is to be learned from it.
            ended: Whether the answer ended by itself, rather than at a limit or because its caller had left.
        """
        self._queue.settle(ticket, self._pace.end(ticket, tokens, ended=ended))
        while self.queued and self.running < self.slots:
            self._grant(self._queue.first())

    def fail_waiting(self, error: ServiceError) -> None:
        """Ends the wait of all requests that wait."""
        while self.queued:
            ticket = self._queue.first()
            self._queue.remove(ticket)
            _fail(ticket, error.copy())

    def _take_slot(self, ticket: Ticket) -> None:
        self._pace.begin(ticket)
        self._queue.charge(ticket)

    def _grant(self, ticket: Ticket) -> None:
        """Gives a slot to a request that waits, if it can still be answered in time."""
        admitted = ticket.admitted
        left = _seconds_left(ticket)
        if admitted is None or admitted.done():  # its caller is just leaving
            self._queue.remove(ticket)
        elif left <= 0:
            self._queue.remove(ticket)
            admitted.set_exception(DeadlinePassedError())
        elif not self._is_likely(ticket, left - _SENDING_SECONDS, _SLOT_CHANCE):
            admitted.set_exception(self._refuse_late(ticket, self._wait(ticket)))
        else:
            self._take_slot(ticket)
            self._queue.remove(ticket)
            admitted.set_result(None)

    def _wait(self, ticket: Ticket) -> float:
        """How long it takes until a request has a slot."""
        each = self._pace.seconds(self._queue.all.tokens / self.queued if self.queued else ticket.tokens)
        return self._pace.wait(self._queue.work_before(ticket) / each, each)

    def _is_likely(self, ticket: Ticket, left: float, part: float) -> bool:
        """Whether a request that gets a slot with so many seconds left has still this part of its first chance."""
        return self._pace.chance(ticket, left) >= max(part * ticket.first_chance, _LEAST_CHANCE)

    def _make_room(self, newcomer: Ticket, wait: float) -> None:
        """Refuses requests until the queue is within its bounds.

        Raises:
            OverloadedError: the newcomer is refused.
        """
        youngest = newcomer.line.tickets[-1]
        longest = self._wait(youngest)
        if longest > self._bounds.seconds:
            self._send_away(youngest, newcomer, longest)
        while self._queue.is_too_full:
            self._send_away(self._queue.victim(), newcomer, wait)

    def _send_away(self, ticket: Ticket, newcomer: Ticket, wait: float) -> None:
        """Refuses a request for which the queue has no room.

        Its caller is asked to come back after half of the wait. Then it is older than those that came meanwhile, and
        stands before them.
        """
        message = f"{self.running} requests are running and {self.queued - 1} are waiting, for about {wait:.1f} s"
        refusal = self._refuse(ticket, "QUEUE_FULL", message, max(self._pace.wait(0.0, 0.0), wait / 2))
        if ticket is newcomer:
            ticket.admitted = None
            raise refusal
        _fail(ticket, refusal)

    def _refuse_late(self, ticket: Ticket, wait: float) -> OverloadedError:
        """Makes the error for a request that cannot be answered in time."""
        left = _seconds_left(ticket)
        need = self._pace.need(ticket)
        message = (
            f"the wait would be about {wait:.1f} s and the answer takes about {need:.1f} s, and the caller's deadline "
            f"passes in {left:.1f} s"
        )
        return self._refuse(ticket, "DEADLINE_TOO_SHORT", message, wait - max(left - need, 0.0), left - need)

    def _refuse(
        self, ticket: Ticket, reason: str, message: str, seconds: float, patience: float = math.inf
    ) -> OverloadedError:
        """Counts a refusal. A retry after so many seconds is pointless for a caller that has less patience."""
        self._queue.remove(ticket)
        self._refusals[reason] += 1
        seconds = max(_SOONEST_RETRY_SECONDS, seconds)
        return OverloadedError(reason, message, retry_after=seconds, is_pointless=seconds > patience)


def _fail(ticket: Ticket, error: ServiceError) -> None:
    """Ends a wait, unless its caller is just leaving."""
    if ticket.admitted is not None and not ticket.admitted.done():
        ticket.admitted.set_exception(error)


def _seconds_left(ticket: Ticket) -> float:
    """Until the caller gives up."""
    return math.inf if ticket.deadline is None else ticket.deadline - time.monotonic()
