"""A request as admission sees it, and how many may wait."""

import asyncio
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from doherty_service.admission._flows import Flow


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
    """A request that asks for a slot, waits for one, or has one. Times are by `time.monotonic()`."""

    priority: Priority
    size: int
    """Bytes of the request."""
    key: str = ""
    """The name of its caller's key; the empty name stands for all callers without one."""
    weight: float = 1.0
    """The share of that key while other keys wait, relative to theirs."""
    most_tokens: int = 1024
    """How many tokens may be generated for it."""
    deadline: float | None = None
    """When the caller gives up; None if it never does."""
    ends_at: float | None = None
    """When its answer ends with what there is; None where it has no time limit."""
    whole: bool = False
    """Whether the caller waits for the whole answer (unary) rather than for the first token."""
    tried_for: float = 0.0
    """For how many seconds the caller says that it has been trying."""
    progress: Progress | None = None

    since: float = 0.0
    """Since when it counts as waiting: the queue of its key is in this order."""
    fresh_chance: float = 1.0
    """How likely it was to be answered in time when it came, had it got a slot at once."""
    tokens: float = 0.0
    """How many tokens it will likely generate."""
    admitted: asyncio.Future[None] | None = None
    """Resolved when a waiting request gets its slot, or with the reason why it gets none."""
    in_line: bool = False
    """Whether it waits in the queue."""
    flow: "Flow | None" = None
    """What it is counted in, while it waits or has a slot."""
    charged: float = 0.0
    """The seconds of slot time that its flow was charged when it got its slot."""
    charged_for: float = 1.0
    """The weight of the flow at that moment."""
    began: float = 0.0
    """When it got its slot."""
    ends: list[float] = field(default_factory=list)
    """When its slot may be free again, each of these equally likely."""
    seen_tokens: int = 0
    seen_at: float = 0.0
    """When it had generated so many tokens; what came later is new to `Pace`."""


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How much may wait."""

    requests: int
    bytes: int
    seconds: float
    """How long the last one of a line may have to wait, by estimate."""
