"""What the server is doing, and its current load."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What the server is doing."""

    LOADING = "loading"
    """The first engine is starting."""
    SERVING = "serving"
    RESTARTING = "restarting"
    """The engine failed, and another one is starting."""
    DRAINING = "draining"
    """The server is shutting down and refuses new requests."""


@dataclass(frozen=True, slots=True)
class Load:
    """The current load; all zero while there is no engine."""

    running: int = 0
    queued: int = 0
    queued_bytes: int = 0
    slots: int = 0

    @property
    def utilization(self) -> float:
        """Running and queued requests, divided by the engine's slots; 0 without an engine."""
        return (self.running + self.queued) / self.slots if self.slots else 0.0
