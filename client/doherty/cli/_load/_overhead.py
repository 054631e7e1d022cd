"""Measures how much the load generator itself adds to the times that it measures.

The difference between the client's total and the server's contains the network, gRPC on both sides, and this process.
These cannot be separated, but three parts of this process's share can be measured: how long a request waits for the
event loop before it is sent, how long an event waits for the event loop, and how much CPU time a message costs.
"""

import asyncio
import threading
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter, process_time
from types import TracebackType
from typing import Final, Self

from doherty import Quantiles
from doherty.cli._load._statistics import mean, quantiles

_PERIOD: Final = 0.02


@dataclass(frozen=True, slots=True)
class Overhead:
    """The time that the load generator itself needed, in seconds."""

    wall: float
    cpu: float
    """The CPU time of all threads of the process."""
    messages: int
    """The number of messages that the client received."""
    loop_lag: Quantiles
    """The time that events from another thread, such as gRPC's, waited for the event loop."""
    mean_loop_lag: float | None
    send_wait: Quantiles
    """The time that requests waited for the event loop before they were sent. It is long if many are made together."""

    @property
    def cpu_share(self) -> float:
        """The share of one core that the process used."""
        return self.cpu / self.wall if self.wall else 0.0

    @property
    def cpu_per_message(self) -> float | None:
        """The CPU time per message, including everything else that the process does."""
        return self.cpu / self.messages if self.messages else None

    @property
    def per_time(self) -> float | None:
        """An estimate of what the generator adds to a measured time: both waits and the work for one message."""
        if self.mean_loop_lag is None or self.cpu_per_message is None or self.send_wait.p50 is None:
            return None
        return self.send_wait.p50 + self.mean_loop_lag + self.cpu_per_message


class OverheadMeter:
    """Measures the overhead on the running event loop, during a `with` block."""

    def __enter__(self) -> Self:
        self._lags: array[float] = array("d")
        self._loop = asyncio.get_running_loop()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._post, daemon=True)
        self._thread.start()
        self._started, self._cpu = perf_counter(), process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cpu = process_time() - self._cpu
        self._wall = perf_counter() - self._started
        self._done.set()
        self._thread.join()

    def overhead(self, messages: int, send_waits: Iterable[float | None]) -> Overhead:
        """Returns the measurements, after the `with` block has ended.

        Args:
            messages: The number of messages that the client received in that time.
            send_waits: The time in seconds that each request waited before it was sent.
        """
        lags = quantiles(self._lags)
        return Overhead(self._wall, self._cpu, messages, lags, mean(self._lags), quantiles(send_waits))

    def _post(self) -> None:
        # A timer of the loop would be too coarse: asyncio rounds waits up to whole milliseconds.
        while not self._done.wait(_PERIOD):
            self._loop.call_soon_threadsafe(self._arrive, perf_counter())

    def _arrive(self, posted: float) -> None:
        self._lags.append(perf_counter() - posted)
