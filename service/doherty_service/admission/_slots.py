"""The engine's slots, and when they will be free."""

import time
from bisect import bisect_left, bisect_right, insort

from doherty_service.admission._pace import Pace
from doherty_service.admission._ticket import Ticket

_PRECISION_SECONDS = 0.001
_GOLDEN = 0.6180339887
_LEAST_TIMES = 32
"""How many possible ends are kept in all, at the least; of each running request two or more."""


class Slots:
    """The requests that have a slot, and an estimate of when each slot is free again."""

    def __init__(self, count: int, pace: Pace) -> None:
        """All are free at first."""
        self.count = count
        self.running: set[Ticket] = set()
        self._pace = pace
        self._times = max(2, -(-_LEAST_TIMES // count))
        """How many possible ends a request has. They are spread over what answers are known to take, so that the first
        of many is expected as early as the first of many answers ends."""
        self._offset = 0.0
        self._ends: list[float] = []
        """The possible ends of those that run, in ascending order."""
        self._unplanned: dict[Ticket, None] = {}
        """Those that got their slot since the last estimate, in that order; one that has ended is not kept."""

    def take(self, ticket: Ticket) -> None:
        """Gives a slot to a request."""
        ticket.began = time.monotonic()
        self.running.add(ticket)
        self._unplanned[ticket] = None

    def free(self, ticket: Ticket) -> None:
        """Takes a slot back."""
        self.running.remove(ticket)
        self._unplanned.pop(ticket, None)
        for end in ticket.ends:
            del self._ends[bisect_left(self._ends, end)]
        ticket.ends = []

    def wait(self, work: float, each: float) -> float:
        """How long it will be until a slot is free for one that stands behind so much work.

        Args:
            work: The seconds of slot time of all that goes before it.
            each: The same of one request.
        """
        self._plan()
        if not self._ends:
            return 0.0
        rank = work / each
        # After all slots were given back some times, the pattern repeats.
        rounds = max(int(rank / self.count) - 1, 0)
        wanted = (rank - rounds * self.count + 0.5) * self._times
        now = time.monotonic()
        turns, place = divmod(int(wanted), len(self._ends))
        soonest, latest = 0.0, max(self._ends[place] - now, 0.0) + turns * each
        while latest - soonest > _PRECISION_SECONDS:
            middle = (soonest + latest) / 2
            if self._count_ends(now + middle, each) > wanted:
                latest = middle
            else:
                soonest = middle
        return rounds * each + latest

    def _count_ends(self, until: float, each: float) -> int:
        """How many of the possible ends come by then, with those of the requests behind them in the same slots."""
        count = 0
        while until >= self._ends[0]:
            count += bisect_right(self._ends, until)
            until -= each
        return count

    def look(self) -> None:
        """Sees to it that estimates are made from what is known by now."""
        if self._pace.look(self.running):
            self._unplanned = dict.fromkeys(self.running)
            self._ends = []
            for ticket in self._unplanned:
                ticket.ends = []

    def _plan(self) -> None:
        """Estimates the ends of those for which there is no estimate yet."""
        self.look()
        for ticket in self._unplanned:
            self._offset = (self._offset + _GOLDEN) % 1
            shares = [(part + self._offset) / self._times for part in range(self._times)]
            ticket.ends = self._pace.ends(ticket, shares)
            for end in ticket.ends:
                insort(self._ends, end)
        self._unplanned = {}
