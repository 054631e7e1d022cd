"""What a server tells of its latency, look after look."""

from collections.abc import Mapping
from dataclasses import dataclass

from doherty._core._deployment import Latency


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
        self._at = 0.0
        self._restarts = 0

    def look(self, told: Latency, at: float) -> View:
        """Takes in what the server told at a moment, by a clock that does not go back."""
        before, elapsed = self._before, at - self._at
        self._before, self._at = told, at
        if before is None:
            return View(told, 0, None, None)
        refusals, aborts = before.refusals, before.aborts
        if told.uptime < before.uptime:
            # The counters of a new process begin at zero with it.
            self._restarts += 1
            refusals, aborts, elapsed = 0, {}, told.uptime
        return View(
            told,
            self._restarts,
            (told.refusals - refusals) / elapsed,
            {cause: (count - aborts.get(cause, 0)) / elapsed for cause, count in told.aborts.items()},
        )
