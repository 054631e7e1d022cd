"""Who is next, so that all who wait get the same time, or as much as their weights say."""

import heapq
import itertools
from typing import Generic, TypeVar


class Share:
    """One of those among whom something is shared."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight
        self.start = 0.0
        """The virtual time at which its next request starts."""
        self.waits = False
        """Whether it has a request that waits."""


ShareT = TypeVar("ShareT", bound=Share)


class FairOrder(Generic[ShareT]):
    """Start-time fair queueing: the share goes next whose next request starts earliest in virtual time.

    A request that takes s seconds moves the start of the next one of its share by s / weight. One that begins to wait
    starts at most a credit earlier than whoever is next: it goes first until it has used that up, and nobody saves up
    more.

    Source: P. Goyal, H. M. Vin and H. Cheng, "Start-time Fair Queueing", IEEE/ACM Transactions on Networking, 1997.
    """

    def __init__(self) -> None:
        self._last = 0.0
        """The start of the last request that was chosen."""
        self._order: list[tuple[float, bool, int, ShareT]] = []
        """A heap of those that wait; entries whose start is not that of their share any more are passed over."""
        self._numbers = itertools.count()

    def begin(self, share: ShareT, credit: float) -> None:
        """A share begins to wait."""
        self.catch_up(share, credit)
        share.waits = True
        self._push(share, has_waited=False)

    def catch_up(self, share: ShareT, credit: float) -> None:
        """Moves the start of a share that does not wait to now, less the credit that it may have."""
        share.start = max(share.start, self._now() - credit)

    def first(self) -> ShareT | None:
        """Who is next; None if nobody waits."""
        while self._order:
            start, _, _, share = self._order[0]
            if share.waits and share.start == start:
                return share
            heapq.heappop(self._order)
        return None

    def charge(self, share: ShareT, seconds: float) -> None:
        """A request of a share is chosen, and will likely take so many seconds."""
        self._last = share.start
        self.correct(share, seconds)

    def correct(self, share: ShareT, seconds: float) -> None:
        """A request took so much longer than it was charged for; less, if negative."""
        share.start += seconds / share.weight
        if share.waits:
            self._push(share)

    def lead(self, share: ShareT) -> float:
        """By how many seconds a share has had more than whoever is next."""
        return max(share.start - self._now(), 0.0) * share.weight

    def _now(self) -> float:
        """Virtual time: the start of whoever is next, or was."""
        share = self.first()
        return self._last if share is None else share.start

    def _push(self, share: ShareT, *, has_waited: bool = True) -> None:
        heapq.heappush(self._order, (share.start, has_waited, next(self._numbers), share))
