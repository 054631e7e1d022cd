"""Hands out the engine's slots."""

import asyncio
import math
import time
from collections import Counter

from doherty_service._errors import DeadlinePassedError, OverloadedError, ServiceError
from doherty_service.admission._pace import Pace
from doherty_service.admission._queue import WaitQueue
from doherty_service.admission._slots import Slots
from doherty_service.admission._ticket import QueueBounds, Ticket

_SOONEST_SECONDS = 0.05
"""Nobody is told to come back sooner."""

_MOST_AGE_SECONDS = 60.0
"""Who says that it has been trying for longer counts as if for so long."""

_CAUTION = 1.25
"""A wait is taken for so much longer where a deadline is held against it."""

_MARGIN_SECONDS = 0.02
"""What an answer takes to its caller, and a little more."""

_KEPT_CHANCE = 0.5
"""A request may wait until it is half as likely to be answered in time as it was when it came."""

_HOPELESS = 0.1
"""Less likely than this is not at all."""


class Admission:
    """Who runs, who waits, and who is refused.

    A request gets a free slot at once. If there is none it waits, unless its wait would be too long: for its caller, by
    its deadline, or for anybody, by `QueueBounds`. The wait is estimated from what is known of how long answers take
    (`Pace`) and of who goes before it (`WaitQueue`). When it gets its slot its deadline is looked at again.

    It serves one start of the engine; what was learned is handed to the next one.
    """

    def __init__(self, slots: int, bounds: QueueBounds, *, pace: Pace, refusals: Counter[str]) -> None:
        """All slots are free at first; refusals are counted by their reason."""
        self.slots = slots
        self._bounds = bounds
        self._pace = pace
        self._refusals = refusals
        self._slots = Slots(slots, pace)
        self._queue = WaitQueue(bounds)

    @property
    def running(self) -> int:
        """How many requests have a slot."""
        return len(self._slots.running)

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self._queue.backlog.count

    @property
    def queued_bytes(self) -> int:
        """The size of the requests that wait."""
        return self._queue.backlog.bytes

    def enter(self, ticket: Ticket) -> bool:
        """Gives a request a slot, or puts it in the queue.

        Whoever got a slot must give it back with `release`, or with `leave` if it was not used. Whoever waits awaits
        `ticket.admitted`, and calls `leave` if it does not wait any longer.

        Returns:
            Whether it has a slot. If not, `ticket.admitted` is there.

        Raises:
            OverloadedError: the wait would be too long for the caller or for the queue, or the queue is full.
        """
        now = time.monotonic()
        self._slots.look()
        left = math.inf if ticket.deadline is None else ticket.deadline - now - _MARGIN_SECONDS
        ticket.fresh_chance = self._pace.chance(ticket, left)
        ticket.tokens = self._pace.lengths.mean(ticket.most_tokens)
        self._queue.find_flow(ticket, left - self._pace.need(ticket))
        if self.running < self.slots and not self.queued:
            if 2 * self.running > self.slots and ticket.fresh_chance < _HOPELESS:
                raise self._refuse_late(ticket, self._pace.seconds(ticket.tokens))
            self._slots.take(ticket)
            self._queue.pass_by(ticket, self._pace.seconds(ticket.tokens))
            return True
        ticket.since = now - min(ticket.tried_for, _MOST_AGE_SECONDS)
        wait = self._wait(self._queue.work_before(ticket, self._pace))
        if not self._is_possible(ticket, left - wait * _CAUTION):
            raise self._refuse_late(ticket, wait)
        self._make_room(ticket, wait)
        ticket.admitted = asyncio.get_running_loop().create_future()
        self._queue.add(ticket, self._pace.seconds(ticket.tokens), self.slots)
        return False

    def leave(self, ticket: Ticket) -> None:
        """Takes a request out of the queue, or a slot from it that it was given and has not used."""
        admitted = ticket.admitted
        if admitted is None:
            return
        ticket.admitted = None
        if ticket in self._slots.running:
            self._free(ticket)
        elif ticket.in_line:
            self._queue.remove(ticket)
        elif not admitted.cancelled():
            admitted.exception()  # nobody may have been there to be told, which asyncio would log

    def release(self, ticket: Ticket, tokens: int | None, *, ended: bool = False) -> None:
        """Gives a slot back, and to the next request that waits.

        Args:
            ticket: The request that had the slot.
            tokens: How many tokens were generated; None if nothing is to be learned from it.
            ended: Whether the answer ended by itself, rather than at a limit or because its caller had left.
        """
        if tokens is not None:
            self._pace.note(ticket, tokens, ended=ended)
        self._free(ticket)

    def fail_waiting(self, error: ServiceError) -> None:
        """Ends the wait of all who wait."""
        while self.queued:
            ticket = self._queue.pop()
            self._queue.forget(ticket)
            _fail(ticket, error.copy())

    def _free(self, ticket: Ticket) -> None:
        self._slots.free(ticket)
        self._queue.settle(ticket, time.monotonic() - ticket.began)
        while self.queued and self.running < self.slots:
            self._grant(self._queue.pop())

    def _grant(self, ticket: Ticket) -> None:
        """Gives a slot to a request that has waited, if it can still be answered in time."""
        admitted = ticket.admitted
        left = math.inf if ticket.deadline is None else ticket.deadline - time.monotonic()
        if admitted is None or admitted.done():  # its caller is just leaving
            self._queue.forget(ticket)
        elif left <= 0:
            self._queue.forget(ticket)
            _fail(ticket, DeadlinePassedError())
        elif not self._is_possible(ticket, left - _MARGIN_SECONDS / 2):
            wait = self._wait(self._queue.work_with(ticket, self._pace))
            _fail(ticket, self._refuse_late(ticket, wait))
        else:
            self._slots.take(ticket)
            self._queue.charge(ticket, self._pace.seconds(ticket.tokens))
            admitted.set_result(None)

    def _wait(self, work: float) -> float:
        """How long it takes until a slot is free behind so many seconds of work."""
        waiting = self._queue.backlog
        each = waiting.tokens / waiting.count if waiting.count else 1.0
        return self._slots.wait(work, self._pace.seconds(each))

    def _is_possible(self, ticket: Ticket, left: float) -> bool:
        """Whether a request that gets a slot with so many seconds left is likely enough to be answered in time."""
        return self._pace.chance(ticket, left) >= max(_KEPT_CHANCE * ticket.fresh_chance, _HOPELESS)

    def _make_room(self, ticket: Ticket, wait: float) -> None:
        """Lets others go for a request, those who came last of whoever uses most; or refuses it.

        Raises:
            OverloadedError: it is the one to go.
        """
        flow = ticket.flow
        youngest = flow.tickets[-1] if flow is not None and flow.tickets else ticket
        if ticket.since >= youngest.since:
            youngest = ticket
        last = wait if youngest is ticket else self._wait(self._queue.work_with(ticket, self._pace))
        if last > self._bounds.seconds:
            self._send_away(youngest, ticket, last)
        while not self._queue.has_room(ticket):
            self._send_away(self._queue.victim(ticket), ticket, wait)

    def _send_away(self, who: Ticket, newcomer: Ticket, wait: float) -> None:
        """Refuses one for whom the queue has no room.

        It is told half of what it would have to wait. If it is back by then it is older than whoever came meanwhile,
        and stands before them.
        """
        refusal = self._refuse(
            who,
            "QUEUE_FULL",
            f"{self.running} requests are running and {self.queued} are waiting, for about {wait:.1f} s",
            max(self._wait(0.0), wait / 2),
        )
        if who is newcomer:
            raise refusal
        self._queue.remove(who)
        _fail(who, refusal)

    def _refuse_late(self, ticket: Ticket, wait: float) -> OverloadedError:
        """Makes the error for a request that cannot be answered in time."""
        left = 0.0 if ticket.deadline is None else ticket.deadline - time.monotonic()
        need = self._pace.need(ticket)
        return self._refuse(
            ticket,
            "DEADLINE_TOO_SHORT",
            f"the wait would be about {wait:.1f} s and the answer takes about {need:.1f} s, and the caller's deadline "
            f"passes in {left:.1f} s",
            wait - max(left - need, 0.0),
            left - need,
        )

    def _refuse(
        self, ticket: Ticket, reason: str, message: str, seconds: float, patience: float = math.inf
    ) -> OverloadedError:
        """Counts a refusal. To come back is pointless for one that cannot wait until then."""
        self._queue.forget(ticket)
        self._refusals[reason] += 1
        seconds = max(_SOONEST_SECONDS, seconds)
        return OverloadedError(reason, message, retry_after=seconds, is_pointless=seconds > patience)


def _fail(ticket: Ticket, error: ServiceError) -> None:
    """Ends a wait, unless its caller is just leaving by itself."""
    if ticket.admitted is not None and not ticket.admitted.done():
        ticket.admitted.set_exception(error)
