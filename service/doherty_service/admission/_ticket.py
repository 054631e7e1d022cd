"""The data of admission: a request, a share of the slots, and the bounds of the queue."""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import Protocol

SINCE = attrgetter("since")
"""The sort key of the requests of a line."""


class Priority(IntEnum):
    """The priority of a request; lower values go first."""

    INTERACTIVE = 0
    BATCH = 1


class Progress(Protocol):
    """The progress of an answer. Times are `time.monotonic()`."""

    first_token: float | None
    last_token: float | None
    output_tokens: int


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that wants, awaits or has a slot. Times are `time.monotonic()`."""

    priority: Priority
    size: int
    """The size of the request in bytes."""
    key: str = ""
    """The name of the caller's API key; the empty name stands for all callers without a key."""
    weight: float = 1.0
    """The weight of this key relative to other keys that wait."""
    max_tokens: int = 1024
    """Maximum number of tokens to generate."""
    deadline: float | None = None
    """The caller's deadline; None if there is none."""
    ends_at: float | None = None
    """When the answer's time limit ends; None if it has none."""
    whole: bool = False
    """Whether the caller waits for the whole answer (unary) rather than for the first token."""
    tried_for: float = 0.0
    """The seconds since the caller's first attempt, as reported by the caller."""
    progress: Progress | None = None

    since: float = 0.0
    """The arrival, minus `tried_for`. The requests of a line are in this order."""
    first_chance: float = 1.0
    """The probability on arrival that it is answered in time if it gets a slot at once."""
    tokens: float = 0.0
    """The expected number of tokens to generate."""
    admitted: asyncio.Future[None] | None = None
    """Resolved when the waiting request gets a slot, or with the error if it gets none."""
    waits: bool = False
    """Whether it is in the queue."""
    line: "Share" = field(init=False)
    """The line in which it waits or for which its slot is counted; set by `WaitQueue.find_line`."""
    charged: float = 0.0
    """The seconds of slot time that its line was charged when it got its slot."""


class Share:
    """A share of the slots' time. The shares form a tree: all, a priority, a key of a priority, a line of a key.

    Slots are assigned by start-time fair queueing. The next slot goes to the child whose next request has the earliest
    start in the virtual time of the parent. A request of s seconds moves the next start of its share by s / weight. A
    child that did not wait starts at the parent's current virtual time. A key or priority that has fewer slots than its
    fair part starts earlier, so that it is served first until it has them.

    Source: P. Goyal, H. M. Vin and H. Cheng, "Start-time Fair Queueing", IEEE/ACM Transactions on Networking, 1997.
    """

    def __init__(self, parent: "Share | None" = None, name: Hashable = None) -> None:
        self.parent = parent
        self.name = name
        self._above: tuple[Share, ...] = () if parent is None else parent.path
        self.weight = 1.0
        self.children: dict[Hashable, Share] = {}
        self.tickets: list[Ticket] = []
        """The waiting requests of a line, in the order of `since`."""
        self.count = 0
        """The number of waiting requests."""
        self.bytes = 0
        """The size of the waiting requests."""
        self.tokens = 0.0
        """The expected number of tokens of the waiting requests."""
        self.running = 0
        """The number of requests that have a slot."""
        self.start = 0.0
        """When the next request starts, in the parent's virtual time."""
        self.now = 0.0
        """The current virtual time of the children: the start of the last request that got a slot."""

    @property
    def path(self) -> "tuple[Share, ...]":
        """This share and all above it. Not stored, because only a garbage collection frees what refers to itself."""
        return self, *self._above

    def child(self, name: Hashable, weight: float, seconds: float = 0.0) -> "Share":
        """Returns or creates the child of this name. It starts earlier by `seconds` per slot that it lacks."""
        child = self.children.get(name)
        if child is None:
            child = self.children[name] = Share(self, name)
        child.weight = weight
        if not child.count:
            start = self.now
            if seconds and (lacking := child.fair_part() * self.running - child.running) > 0:
                start -= lacking * seconds / weight
            child.start = max(child.start, start)
        return child

    def waiting(self) -> "list[Share]":
        """The children that have waiting requests."""
        return [child for child in self.children.values() if child.count]

    def youngest(self) -> Ticket:
        """The waiting request that came last."""
        return self.tickets[-1] if self.tickets else max((child.youngest() for child in self.waiting()), key=SINCE)

    def fair_part(self) -> float:
        """The part of the parent's slots that it gets while all its siblings use theirs."""
        if self.parent is None or len(self.parent.children) == 1:
            return 1.0
        weights: float = sum(map(attrgetter("weight"), self.parent.children.values()))
        return self.weight / weights

    def part(self) -> float:
        """The part of the parent's slots that it gets at present.

        It is the fair part, or its part of the running requests if that is more: siblings may not use theirs.
        """
        return max(self.fair_part(), self.running / max(self.parent.running, 1) if self.parent else 1.0)

    def count_waiting(self, ticket: Ticket, sign: int) -> None:
        """Counts one more waiting request (1), or one less (-1)."""
        self.count += sign
        self.bytes += sign * ticket.size
        self.tokens += sign * ticket.tokens

    def charge(self, seconds: float, slots: int) -> None:
        """Charges seconds of slot time, and counts a slot that is assigned (1) or free again (-1)."""
        self.running += slots
        if self.parent is not None:
            if slots > 0:
                self.parent.now = max(self.start, self.parent.now)
            self.start += seconds / self.weight


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """The maximum size of the queue."""

    requests: int
    bytes: int
    seconds: float
    """Maximum estimated wait of the last request of a line."""
