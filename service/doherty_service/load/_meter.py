"""Measures the load of the server."""

import asyncio
import math
import time
from typing import TYPE_CHECKING, NoReturn

from doherty_service.load._report import LoadReport

if TYPE_CHECKING:
    from doherty_service.generation import Generations
    from doherty_service.telemetry import LatencyRecorder

_INTERVAL_SECONDS = 0.1

_AVERAGE_SECONDS = 10.0
"""Time constant of the exponential averages of rates and utilization. Balancers divide one by the other, so both need
the same one; it must be long enough to include the ends of some answers."""


class LoadMeter:
    """Keeps the load of the last seconds as an encoded report."""

    def __init__(self, generations: "Generations", recorder: "LatencyRecorder") -> None:
        self._generations = generations
        self._recorder = recorder
        self._utilization = 0.0
        self._answers = 0.0
        self._failures = 0.0
        self.encoded = self.report().encode()
        """The encoded report, at most a tenth of a second old."""
        self.for_calls: bytes | None = None
        """The same for the status of a call; None while the rate of answers or the utilization is 0. Balancers take no
        weight from such a report, and Envoy logs it as an error."""

    async def run(self) -> NoReturn:
        """Updates the report every tenth of a second. Runs until it is cancelled."""
        last, answered, failed = time.monotonic(), self._recorder.answered, self._recorder.failed
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            now = time.monotonic()
            self._average(now - last, self._recorder.answered - answered, self._recorder.failed - failed)
            last, answered, failed = now, self._recorder.answered, self._recorder.failed
            self.encoded = self.report().encode()
            self.for_calls = self.encoded if self._answers and self._utilization else None

    def report(self) -> LoadReport:
        """The current load report."""
        load = self._generations.load()
        return LoadReport(self._utilization, self._answers, self._failures, load.running + load.queued)

    def _average(self, seconds: float, answered: int, failed: int) -> None:
        """Updates the averages with the counts of the last `seconds`."""
        share = 1 - math.exp(-seconds / _AVERAGE_SECONDS)
        self._utilization += share * (self._generations.load().utilization - self._utilization)
        self._answers += share * (answered / seconds - self._answers)
        self._failures += share * (failed / seconds - self._failures)
