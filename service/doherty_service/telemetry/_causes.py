"""The reasons for refusals and aborts."""

from enum import Enum

REFUSALS = ("QUEUE_FULL", "DEADLINE_TOO_SHORT", "KEY_LIMIT", "COUNTING_FULL")
"""The error reasons of requests that are refused before the server does any work for them."""


class AbortCause(Enum):
    """Why a request ended before its answer was complete. The values are the enum names of the contract."""

    CANCELLED = "ABORT_CAUSE_CANCELLED"
    DEADLINE = "ABORT_CAUSE_DEADLINE"
    STALLED_READER = "ABORT_CAUSE_STALLED_READER"
    DRAIN = "ABORT_CAUSE_DRAIN"
    ENGINE = "ABORT_CAUSE_ENGINE"

    @property
    def label(self) -> str:
        """The name in metrics, the log and traces, for example "stalled_reader"."""
        return self.name.lower()
