"""Compares the latency reports of a server over time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from doherty import Latency

_CLOCKS_DIFFER: Final = 2e-4
"""The maximum relative difference between the speeds of two machines' clocks."""
_SLACK: Final = 0.01


def was_restarted(before: Latency, after: Latency, apart: float) -> bool:
    """Whether a server was restarted between two reports: its uptime has grown less than the time between them.

    Args:
        before: The first report.
        after: The second report.
        apart: The seconds from the first reply to the second request.
    """
    return after.uptime < before.uptime + apart * (1 - _CLOCKS_DIFFER) - _SLACK


@dataclass(frozen=True, slots=True)
class View:
    """One report, and what changed since the one before it."""

    latency: Latency
    restarts: int
    """The number of restarts of the server since the first report."""
    refusals_per_second: float | None
    """None for the first report."""
    aborts_per_second: Mapping[str, float] | None
    """By cause; None for the first report."""


class Trend:
    """Compares each report with the one before it."""

    def __init__(self) -> None:
        self._before: Latency | None = None
        self._answered = 0.0
        self._restarts = 0

    def look(self, latency: Latency, asked: float, answered: float) -> View:
        """Adds a report that was requested at `asked` and came at `answered`, both by a monotonic clock."""
        before, apart, elapsed = self._before, asked - self._answered, answered - self._answered
        self._before, self._answered = latency, answered
        if before is None:
            return View(latency, 0, None, None)
        refusals, aborts = before.refusals, before.aborts
        if was_restarted(before, latency, apart):
            # A new process counts from zero.
            self._restarts += 1
            refusals, aborts, elapsed = 0, {}, latency.uptime
        return View(
            latency,
            self._restarts,
            (latency.refusals - refusals) / elapsed,
            {cause: (count - aborts.get(cause, 0)) / elapsed for cause, count in latency.aborts.items()},
        )
