"""A request as admission sees it, the shares of the slots that requests stand in, and how many may wait."""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import Protocol

SINCE = attrgetter("since")
"""By what requests of one line are ordered."""


class Priority(IntEnum):
    """Who goes first; lower goes first."""

    INTERACTIVE = 0
    BATCH = 1


class Progress(Protocol):
    """How far an answer has come. Times are by `time.monotonic()`."""

    first_token: float | None
    last_token: float | None
    output_tokens: int


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that asks for a slot, waits for a slot, or has a slot. Times are by `time.monotonic()`."""

    priority: Priority
    size: int
    """Bytes of the request."""
    key: str = ""
    """The name of the caller's API key; the empty name stands for all callers without a key."""
    weight: float = 1.0
    """The share of this key while other keys wait, relative to theirs."""
    most_tokens: int = 1024
    """How many tokens may be generated for it."""
    deadline: float | None = None
    """When the caller gives up; None if it never does."""
    ends_at: float | None = None
    """When the answer ends with what there is by then; None where it has no time limit."""
    whole: bool = False
    """Whether the caller waits for the whole answer (unary) rather than for the first token."""
    tried_for: float = 0.0
    """For how many seconds the caller says that it has been trying."""
    progress: Progress | None = None

    since: float = 0.0
    """Since when it counts as waiting: requests of one line are in this order."""
    first_chance: float = 1.0
    """How likely it was to be answered in time when it arrived, had it got a slot at once."""
    tokens: float = 0.0
    """How many tokens will probably be generated for it."""
    admitted: asyncio.Future[None] | None = None
    """Resolved when a waiting request gets its slot, or with the reason why it gets none."""
    waits: bool = False
    """Whether it is in the queue."""
    line: "Share" = field(init=False)
    """The line that it waits in, or that its slot is counted for; set by `WaitQueue.find_line`."""
    charged: float = 0.0
    """The seconds of slot time that its line was charged when it got its slot."""


class Share:
    """A part of the slots' time: all of it, that of a priority, of a key within it, or of a line of a key.

    Slots are given by start-time fair queueing. The child gets the next slot whose next request starts earliest in the
    virtual time of its parent, and a request of s seconds moves the next start of its share by s / weight. A child that
    did not wait starts at the virtual time of its parent. A key or priority starts earlier by the slots that it lacks
    of its fair part: it is served first until it has them.

    Source: P. Goyal, H. M. Vin and H. Cheng, "Start-time Fair Queueing", IEEE/ACM Transactions on Networking, 1997.
    """

    def __init__(self, parent: "Share | None" = None, name: Hashable = None) -> None:
        self.parent = parent
        self.name = name
        self.weight = 1.0
        self.children: dict[Hashable, Share] = {}
        self.tickets: list[Ticket] = []
        """The requests of a line that wait, in the order of `since`."""
        self.count = 0
        """How many requests wait."""
        self.bytes = 0
        self.tokens = 0.0
        """How many tokens will probably be generated for those that wait."""
        self.running = 0
        """How many requests have a slot."""
        self.start = 0.0
        """The virtual time of the parent at which the next request starts."""
        self.now = 0.0
        """The virtual time of the children: the start of the last request that got a slot."""

    def child(self, name: Hashable, weight: float, seconds: float = 0.0) -> "Share":
        """The child of this name, made if there is none; it may start earlier by `seconds` for each slot it lacks."""
        child = self.children.get(name)
        if child is None:
            child = self.children[name] = Share(self, name)
        child.weight = weight
        if not child.count:
            lacking = max(child.fair_part() * self.running - child.running, 0.0)
            child.start = max(child.start, self.now - lacking * seconds / weight)
        return child

    def waiting(self) -> "list[Share]":
        """The children that have requests that wait."""
        return [child for child in self.children.values() if child.count]

    def youngest(self) -> Ticket:
        """The request that came last of those that wait."""
        return self.tickets[-1] if self.tickets else max((child.youngest() for child in self.waiting()), key=SINCE)

    def fair_part(self) -> float:
        """The part of its parent's slots that it gets while all its siblings want theirs."""
        if self.parent is None:
            return 1.0
        weights: float = sum(map(attrgetter("weight"), self.parent.children.values()))
        return self.weight / weights

    def part(self) -> float:
        """The part of its parent's slots that it gets while it waits.

        That is its fair part, or what it has of the running requests, because others may not want theirs.
        """
        return max(self.fair_part(), self.running / max(self.parent.running, 1) if self.parent else 1.0)

    def count_waiting(self, ticket: Ticket, sign: int) -> None:
        """Counts one more request that waits (1), or one less (-1)."""
        self.count += sign
        self.bytes += sign * ticket.size
        self.tokens += sign * ticket.tokens

    def charge(self, seconds: float, slots: int) -> None:
        """Counts seconds of slot time, and a slot that is given to a request (1) or back (-1)."""
        self.running += slots
        if self.parent is not None:
            if slots > 0:
                self.parent.now = max(self.start, self.parent.now)
            self.start += seconds / self.weight


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How much may wait."""

    requests: int
    bytes: int
    seconds: float
    """How long the last request of a line may have to wait, by estimate."""
