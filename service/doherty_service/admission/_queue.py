"""The queue of waiting requests, and the order in which they get slots."""

import math
from bisect import bisect_left, bisect_right, insort
from operator import attrgetter

from doherty_service.admission._pace import Pace
from doherty_service.admission._ticket import SINCE, Priority, QueueBounds, Share, Ticket

_WEIGHTS = {Priority.INTERACTIVE: 0.9, Priority.BATCH: 0.1}
"""The shares of the slots' time while requests of both priorities wait."""

_MIN_PATIENCE, _MAX_PATIENCE = 0.125, 32.0
"""Seconds. The lines for the shortest and the longest possible waits; requests beyond them join these lines."""


class WaitQueue:
    """Shares the slots among priorities, within a priority among keys, and within a key among lines.

    A line contains the requests of a key that can wait for about the same time. With a single line per key, requests
    that can wait long would make it too long for requests that cannot.

    Every operation takes O(log n) steps for n waiting requests, and O(k) for k keys.
    """

    def __init__(self, bounds: QueueBounds, pace: Pace) -> None:
        self.all = Share()
        self._bounds = bounds
        self._pace = pace

    def find_line(self, ticket: Ticket, patience: float) -> None:
        """Assigns a request to a line by the seconds that it can wait. Call `remove` if the request is refused."""
        seconds = self._pace.seconds(ticket.tokens)
        priority = self.all.child(ticket.priority, _WEIGHTS[ticket.priority], seconds)
        if ticket.priority is Priority.BATCH and not priority.count and Priority.INTERACTIVE in self.all.children:
            # Batch starts just after interactive requests, so that the next interactive request still goes first.
            after_interactive = math.nextafter(self.all.children[Priority.INTERACTIVE].start, math.inf)
            priority.start = max(priority.start, after_interactive)
        _, exponent = math.frexp(min(max(patience, _MIN_PATIENCE), _MAX_PATIENCE))
        ticket.line = priority.child(ticket.key, ticket.weight, seconds).child(exponent, 1.0)

    def remove(self, ticket: Ticket) -> None:
        """Removes a request from its line if it waits, and deletes the line if it has no requests any more."""
        if ticket.waits:
            tickets = ticket.line.tickets
            del tickets[tickets.index(ticket, bisect_left(tickets, ticket.since, key=SINCE))]
            for share in ticket.line.path:
                share.count_waiting(ticket, -1)
            ticket.waits = False
        for share in ticket.line.path:
            if share.parent is None or share.count or share.running or share.children:
                return
            del share.parent.children[share.name]

    def work_before(self, ticket: Ticket) -> float:
        """The seconds of slot time of all requests that get a slot before this one.

        These are not only the requests before it in its line: other lines, keys and priorities get their shares in the
        meantime, including requests that arrive later.
        """
        line = ticket.line
        before = bisect_right(line.tickets, ticket.since, key=SINCE) - ticket.waits
        seconds = line.count * self._pace.delay + line.tokens * self._pace.per_token
        work = seconds * before / max(line.count, 1)
        for share in ticket.line.path:
            work /= share.part()
        return work

    def add(self, ticket: Ticket) -> None:
        """Adds a request to its line."""
        insort(ticket.line.tickets, ticket, key=SINCE)
        for share in ticket.line.path:
            share.count_waiting(ticket, 1)
        ticket.waits = True

    def first(self) -> Ticket:
        """The request that gets the next slot. At least one must wait."""
        share = self.all
        while share.children:
            share = min(share.waiting(), key=attrgetter("start"))
        return share.tickets[0]

    def charge(self, ticket: Ticket) -> None:
        """Charges a request's line, key and priority for a slot, by the estimated duration."""
        ticket.charged = self._pace.seconds(ticket.tokens)
        for share in ticket.line.path:
            share.charge(ticket.charged, 1)

    def settle(self, ticket: Ticket, seconds: float) -> None:
        """Corrects the charge when a slot is free again after `seconds`."""
        for share in ticket.line.path:
            share.charge(seconds - ticket.charged, -1)
        self.remove(ticket)

    @property
    def is_too_full(self) -> bool:
        """Whether more requests or bytes wait than allowed. A single request is never too large."""
        waiting, bounds = self.all, self._bounds
        return waiting.count > bounds.requests or (waiting.count > 1 and waiting.bytes > bounds.bytes)

    def victim(self) -> Ticket:
        """The request to refuse when the queue is too full: the youngest of the key that uses most of the queue.

        Batch requests are chosen first, if refusing them is sufficient and they use more than their share of the queue.
        """
        waiting, batch = self.all, self.all.children.get(Priority.BATCH, Share())
        others = [share for share in waiting.waiting() if share is not batch]
        is_sufficient = waiting.bytes - batch.bytes <= self._bounds.bytes
        priority = batch if batch.count > _WEIGHTS[Priority.BATCH] * waiting.count and is_sufficient else others[0]
        return max(reversed(priority.waiting()), key=self._use).youngest()

    def _use(self, key: Share) -> tuple[float, float]:
        """The share of the queue that a key uses, relative to its weight. Ties: the age of its youngest request."""
        count, size = key.count / max(self._bounds.requests, 1), key.bytes / max(self._bounds.bytes, 1)
        return (count + size) / key.weight, key.youngest().since
