"""Why a request can be refused, or end early."""

from enum import Enum

REFUSALS = ("QUEUE_FULL", "DEADLINE_TOO_SHORT", "KEY_LIMIT", "COUNTING_FULL")
"""The reasons for which a request is refused before any work is done for it."""


class AbortCause(Enum):
    """Why a request ended before its answer was complete; the values are the names in the contract."""

    CANCELLED = "ABORT_CAUSE_CANCELLED"
    DEADLINE = "ABORT_CAUSE_DEADLINE"
    STALLED_READER = "ABORT_CAUSE_STALLED_READER"
    DRAIN = "ABORT_CAUSE_DRAIN"
    ENGINE = "ABORT_CAUSE_ENGINE"

    @property
    def label(self) -> str:
        """The name in metrics, the log and traces, as "stalled_reader"."""
        return self.name.lower()
