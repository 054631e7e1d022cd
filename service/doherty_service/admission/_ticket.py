"""A request as admission sees it, and how many may wait."""

import asyncio
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from doherty_service.admission._queue import Share


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


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How much may wait."""

    requests: int
    bytes: int
    seconds: float
    """How long the last request of a line may have to wait, by estimate."""
