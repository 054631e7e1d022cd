"""Measures the load."""

import asyncio
import math
import time
from typing import TYPE_CHECKING, NoReturn

from doherty_service.load._report import LoadReport

if TYPE_CHECKING:
    from doherty_service.generation import Generations
    from doherty_service.telemetry import LatencyRecorder

_LOOK_SECONDS = 0.1

_AVERAGE_SECONDS = 10.0
"""Rates and utilization are averages that forget at this pace (exponentially). Balancers divide one by the other, so
both are taken over the same time, which has to have some ends of answers in it."""


class LoadMeter:
    """Keeps the load of the last seconds, ready to be sent."""

    def __init__(self, generations: "Generations", recorder: "LatencyRecorder") -> None:
        """Reads from both; nothing has happened yet."""
        self._generations = generations
        self._recorder = recorder
        self._utilization = 0.0
        self._answers = 0.0
        self._failures = 0.0
        self.encoded = self.report().encode()
        """The last report as bytes, at most a tenth of a second old."""

    async def run(self) -> NoReturn:
        """Looks again and again, until it is cancelled."""
        last, answered, failed = time.monotonic(), self._recorder.answered, self._recorder.failed
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            self._note(now - last, self._recorder.answered - answered, self._recorder.failed - failed)
            last, answered, failed = now, self._recorder.answered, self._recorder.failed
            self.encoded = self.report().encode()

    def report(self) -> LoadReport:
        """The load as of the last look."""
        load = self._generations.load()
        return LoadReport(self._utilization, self._answers, self._failures, load.running + load.queued)

    def _note(self, seconds: float, answered: int, failed: int) -> None:
        """Takes in what happened in the last `seconds`."""
        share = 1 - math.exp(-seconds / _AVERAGE_SECONDS)
        self._utilization += share * (self._generations.load().utilization - self._utilization)
        self._answers += share * (answered / seconds - self._answers)
        self._failures += share * (failed / seconds - self._failures)
