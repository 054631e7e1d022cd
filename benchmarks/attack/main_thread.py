"""How long threads run, and wait for a processor: the main thread of a server, and those of this process."""

import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

INTERVAL_SECONDS = 0.004
OWN_INTERVAL_SECONDS = 0.02
OWN_THREADS = Path("/proc/self/task")


class Sampler(ABC):
    """Samples the scheduler's statistics of threads in a thread of its own (Linux only), as a context manager."""

    def __init__(self, interval: float) -> None:
        """Samples every `interval` seconds."""
        self._interval = interval
        self._times: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Starts to sample."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops."""
        self._stopped.set()
        self._thread.join()

    @abstractmethod
    def sample(self) -> None:
        """Takes one sample.

        Raises:
            ProcessLookupError: The threads have ended.
        """

    def _run(self) -> None:
        with suppress(ProcessLookupError):
            while not self._stopped.wait(self._interval):
                self.sample()
                self._times.append(time.monotonic())

    def _samples_around(self, begin: float, end: float) -> tuple[int, int]:
        """The numbers of the last sample before `begin` and of the first one after `end`."""
        return max(0, bisect_right(self._times, begin) - 1), min(len(self._times) - 1, bisect_left(self._times, end))


class MainThread(Sampler):
    """Samples the main thread of a process, in which its event loop runs."""

    def __init__(self, pid: int) -> None:
        """Reads the file in which the kernel counts, in nanoseconds."""
        super().__init__(INTERVAL_SECONDS)
        self._path = Path(f"/proc/{pid}/task/{pid}/schedstat")
        self._ran: list[int] = []
        self._waited: list[int] = []

    def ran_and_waited(self, begin: float, end: float) -> tuple[float, float]:
        """The milliseconds for which it ran, and waited for a processor, between two times of `time.monotonic()`.

        They are counted from the last sample before `begin` to the first one after `end`.
        """
        first, last = self._samples_around(begin, end)
        return (self._ran[last] - self._ran[first]) / 1e6, (self._waited[last] - self._waited[first]) / 1e6

    def sample(self) -> None:
        """Takes one sample."""
        try:
            ran, waited, _ = map(int, self._path.read_text().split())
        except FileNotFoundError as error:
            raise ProcessLookupError from error
        self._ran.append(ran)
        self._waited.append(waited)


class OwnThreads(Sampler):
    """Samples all threads of this process."""

    def __init__(self) -> None:
        super().__init__(OWN_INTERVAL_SECONDS)
        self._waited: list[dict[str, int]] = []
        """By thread, in nanoseconds."""

    def longest_wait(self, begin: float, end: float) -> float:
        """The milliseconds for which the thread that waited longest for a processor did so between two times.

        They are counted as in `MainThread`.
        """
        first, last = self._samples_around(begin, end)
        before, after = self._waited[first], self._waited[last]
        return max(waited - before.get(thread, waited) for thread, waited in after.items()) / 1e6

    def sample(self) -> None:
        """Takes one sample."""
        waited: dict[str, int] = {}
        for thread in OWN_THREADS.iterdir():
            with suppress(OSError):  # it has ended
                waited[thread.name] = int((thread / "schedstat").read_text().split()[1])
        self._waited.append(waited)
