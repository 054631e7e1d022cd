"""What admission needs to know of a request."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Who goes first; lower goes first."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request as admission sees it."""

    priority: Priority
    size: int
    """In bytes."""
    fingerprint: Callable[[], int]
    """Tells the same for the same request when it is sent again; asked only when requests are refused."""
    deadline: float | None = None
    """The time by `time.monotonic()` at which the caller gives up; None if it never does."""
    whole: bool = False
    """Whether the caller waits for the whole answer (unary) rather than for the first token."""
    again: bool = False
    """Whether the caller says that it has sent the request before."""
