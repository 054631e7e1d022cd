"""What callers may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What callers may use."""

    message_bytes: int
    """Bytes of one message."""
    streams: int
    """Concurrent calls on one connection."""
    connections: int
    """Connections that are accepted."""
