"""A request as admission sees it."""

import asyncio
from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Who goes first; lower goes first."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that asks for a slot, waits for one, or has one."""

    priority: Priority
    size: int
    """Bytes of the request."""
    fingerprint: int
    """The same for the same request when it is sent again."""
    deadline: float | None = None
    """When the caller gives up, by `time.monotonic()`; None if it never does."""
    whole: bool = False
    """Whether the caller waits for the whole answer (unary) rather than for the first token."""
    again: bool = False
    """Whether the caller says that it has sent the request before."""
    since: float = 0.0
    """When it first asked, by `time.monotonic()`. One that was refused and returns as told keeps its first time."""
    admitted: asyncio.Future[None] | None = None
    """Resolved when a waiting request gets its slot; None while it does not wait."""
    began: float = 0.0
    """When it got its slot, by `time.monotonic()`."""
