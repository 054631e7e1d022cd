"""What a server tells of its latency, look after look."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from doherty import Latency

_CLOCKS_DIFFER: Final = 2e-4
"""How much faster one machine's clock may be than another's."""
_SLACK: Final = 0.01


def was_restarted(before: Latency, after: Latency, apart: float) -> bool:
    """Tells whether a server is no longer the process that it was, for it has not been up as long as that would be.

    Args:
        before: What it told first.
        after: What it told then.
        apart: The seconds between the one reply and the other request.
    """
    return after.uptime < before.uptime + apart * (1 - _CLOCKS_DIFFER) - _SLACK


@dataclass(frozen=True, slots=True)
class View:
    """One look, and what has happened since the one before."""

    told: Latency
    restarts: int
    """How often the server was started anew since the first look."""
    refusals_per_second: float | None
    """None at the first look."""
    aborts_per_second: Mapping[str, float] | None
    """By cause; None at the first look."""


class Trend:
    """Compares what a server told with what it told before."""

    def __init__(self) -> None:
        self._before: Latency | None = None
        self._answered = 0.0
        self._restarts = 0

    def look(self, told: Latency, asked: float, answered: float) -> View:
        """Takes in what the server told between two moments, by a clock that does not go back."""
        before, apart, elapsed = self._before, asked - self._answered, answered - self._answered
        self._before, self._answered = told, answered
        if before is None:
            return View(told, 0, None, None)
        refusals, aborts = before.refusals, before.aborts
        if was_restarted(before, told, apart):
            # The counters of a new process begin at zero with it.
            self._restarts += 1
            refusals, aborts, elapsed = 0, {}, told.uptime
        return View(
            told,
            self._restarts,
            (told.refusals - refusals) / elapsed,
            {cause: (count - aborts.get(cause, 0)) / elapsed for cause, count in told.aborts.items()},
        )
