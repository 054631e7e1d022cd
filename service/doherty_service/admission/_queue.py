"""The requests that wait, and which of them is next."""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from operator import attrgetter

from doherty_service.admission._pace import Pace
from doherty_service.admission._ticket import SINCE, Priority, QueueBounds, Share, Ticket

_WEIGHTS = {Priority.INTERACTIVE: 0.9, Priority.BATCH: 0.1}
"""The parts of the slots' time, while both wait."""

_LEAST_PATIENCE, _MOST_PATIENCE = 0.125, 32.0
"""Seconds. Requests that can wait for less or for more stand with those that can wait for so long."""


class WaitQueue:
    """Shares slots between priorities, within them between keys, and within these between lines.

    The requests of a key that can wait for about as long stand in one line. If all of them stood in the same line,
    those that can wait long would make it too long for those that cannot.

    Every operation takes O(log n) steps for n requests that wait, and O(k) for k keys.
    """

    def __init__(self, bounds: QueueBounds, pace: Pace) -> None:
        """Nobody waits."""
        self.all = Share()
        self._bounds = bounds
        self._pace = pace

    def find_line(self, ticket: Ticket, patience: float) -> None:
        """Gives a request its line, by the seconds that it can wait; `remove` must follow if it is refused."""
        seconds = self._pace.seconds(ticket.tokens)
        priority = self.all.child(ticket.priority, _WEIGHTS[ticket.priority], seconds)
        if ticket.priority is Priority.BATCH and not priority.count and Priority.INTERACTIVE in self.all.children:
            # Batch gets its part from now on, so an interactive request that comes next still goes first.
            behind = math.nextafter(self.all.children[Priority.INTERACTIVE].start, math.inf)
            priority.start = max(priority.start, behind)
        _, exponent = math.frexp(min(max(patience, _LEAST_PATIENCE), _MOST_PATIENCE))
        ticket.line = priority.child(ticket.key, ticket.weight, seconds).child(exponent, 1.0)

    def remove(self, ticket: Ticket) -> None:
        """Takes a request out of its line if it waits; lets go of the line if nothing waits or runs in it any more."""
        if ticket.waits:
            tickets = ticket.line.tickets
            del tickets[tickets.index(ticket, bisect_left(tickets, ticket.since, key=SINCE))]
            for share in _path(ticket):
                share.count_waiting(ticket, -1)
            ticket.waits = False
        for share in _path(ticket):
            if share.parent is not None and not share.count and not share.running and not share.children:
                del share.parent.children[share.name]

    def work_before(self, ticket: Ticket) -> float:
        """The seconds of slot time of all that get a slot before a request.

        Not only those before it in its line: meanwhile other lines, keys and priorities get their part, also requests
        that come later.
        """
        line = ticket.line
        before = bisect_right(line.tickets, ticket.since, key=SINCE) - ticket.waits
        seconds = line.count * self._pace.delay + line.tokens * self._pace.per_token
        work = seconds * before / max(line.count, 1)
        for share in _path(ticket):
            work /= share.part()
        return work

    def add(self, ticket: Ticket) -> None:
        """Puts a request into its line."""
        insort(ticket.line.tickets, ticket, key=SINCE)
        for share in _path(ticket):
            share.count_waiting(ticket, 1)
        ticket.waits = True

    def first(self) -> Ticket:
        """The request that gets the next slot, where one waits."""
        share = self.all
        while share.children:
            share = min(share.waiting(), key=attrgetter("start"))
        return share.tickets[0]

    def charge(self, ticket: Ticket) -> None:
        """Counts a slot that a request gets, for as long as it will probably have it."""
        ticket.charged = self._pace.seconds(ticket.tokens)
        for share in _path(ticket):
            share.charge(ticket.charged, 1)

    def settle(self, ticket: Ticket, seconds: float) -> None:
        """Counts a slot that a request gives back, after so many seconds."""
        for share in _path(ticket):
            share.charge(seconds - ticket.charged, -1)
        self.remove(ticket)

    @property
    def is_too_full(self) -> bool:
        """Whether more requests or bytes wait than may; one request alone is never too large."""
        waiting, bounds = self.all, self._bounds
        return waiting.count > bounds.requests or (waiting.count > 1 and waiting.bytes > bounds.bytes)

    def victim(self) -> Ticket:
        """The request that gives way first: the youngest of the key that uses most of the queue.

        Batch requests give way before others if that is enough, as long as they have more than their part of the queue.
        """
        waiting, batch = self.all, self.all.children.get(Priority.BATCH, Share())
        others = [share for share in waiting.waiting() if share is not batch]
        is_enough = waiting.bytes - batch.bytes <= self._bounds.bytes
        goes = batch if batch.count > _WEIGHTS[Priority.BATCH] * waiting.count and is_enough else others[0]
        return max(reversed(goes.waiting()), key=self._use).youngest()

    def _use(self, key: Share) -> tuple[float, float]:
        """The part of the queue that a key uses, for its weight; of equal ones, that of the youngest request counts."""
        count, size = key.count / max(self._bounds.requests, 1), key.bytes / max(self._bounds.bytes, 1)
        return (count + size) / key.weight, key.youngest().since


def _path(ticket: Ticket) -> Iterator[Share]:
    """The line of a request, its key, its priority, and all of the slots' time."""
    share: Share | None = ticket.line
    while share is not None:
        yield share
        share = share.parent
