"""Counts the resources that a server holds, as reported by the operating system, the server and its API."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from doherty.v1.latency_service_pb2 import GetLatencyRequest
from support.server import ServerProcess
from support.wire import SECONDS, Caller

PROBE = str(Path(__file__).parent / "probe")
"""The folder that must be on the PYTHONPATH of the server, so that it can report its resources."""

COLUMNS = (
    "seconds",
    "RSS (MiB)",
    "threads",
    "core's threads",
    "pool's threads",
    "open files",
    "tasks",
    "running",
    "queued",
)

KEPT = {
    "doherty_engine._outputs.TokenLogprob": "the synthetic engine keeps those that it has made once",
    "doherty_engine._requests.Sampling": "part of the cached settings",
    "doherty_engine._requests.Stopping": "part of the cached settings",
    "doherty_service.admission._pace._Answer": "the latest answers, whose number is bounded",
    "doherty_service.telemetry._histogram.Histogram": "one for each set of labels",
    "doherty_service.telemetry._window.Outcome": "one for each way to end, for each second of the window",
    "doherty_service.telemetry._window.Quantiles": "part of the cached snapshots",
    "doherty_service.telemetry._window.Refusal": "one for each reason, for each second of the window",
    "doherty_service.telemetry._window.Snapshot": "servicers/_snapshots.py caches at most 8",
    "doherty_service.telemetry._window.Tally": "one for each second of the window",
    "doherty_service.telemetry._window._Second": "one for each second of the window",
    "doherty_service.telemetry._window._Latencies": "one for each second of the window",
    "doherty_service.translation._requests._Inputs": "part of the keys of that cache",
    "doherty_service.translation._requests._Settings": "a cache of at most 1,000",
    "grpc._utilities.RpcMethodHandler": "one for each method that was called",
}
"""Columns that may grow within a limit, and the reason."""

_MIB_PER_PAGE = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
_CORES_POOL = "event_engine"
_QUIET_SECONDS = 90.0
"""The seconds within which half-open connections and threads of gRPC's core must disappear."""


@dataclass(frozen=True, slots=True)
class Census:
    """The resources that a server holds at one moment."""

    seconds: float
    """The seconds since the soak began."""
    rss_mib: float
    threads: int
    """Without the threads of gRPC's core and of asyncio's pool."""
    core_threads: int
    """The threads of gRPC's core, whose pool grows at a busy moment and seldom shrinks."""
    pool_threads: int
    """The threads of `asyncio.to_thread`, whose pool grows to 4 threads more than the cores, and never shrinks."""
    files: int
    """Open file descriptors; each connection has one."""
    tasks: int
    """The tasks of asyncio."""
    running: int
    queued: int
    objects: dict[str, int]
    """The number of instances of each class of the server, of its engine and of grpc."""

    @property
    def line(self) -> tuple[float, ...]:
        """Returns the values below COLUMNS."""
        held = (self.threads, self.core_threads, self.pool_threads, self.files, self.tasks, self.running, self.queued)
        return (round(self.seconds), round(self.rss_mib, 1), *held)

    def leaked(self, before: "Census") -> dict[str, int]:
        """Returns what exceeds `before`."""
        names = ("threads", "files", "tasks", "running", "queued")
        more = {name: getattr(self, name) - getattr(before, name) for name in names}
        more |= {name: count - before.objects.get(name, 0) for name, count in self.objects.items() if name not in KEPT}
        return {name: count for name, count in more.items() if count > 0}


class Taker:
    """Takes censuses of a server that was started with PROBE."""

    def __init__(self, server: ServerProcess, caller: Caller) -> None:
        """Calls the server through `caller`."""
        self._server = server
        self._caller = caller
        self._begun = time.monotonic()
        self.errors: list[str] = []
        """The errors that the server logged."""

    def take(self) -> Census:
        """Takes a census, and discards the log up to it."""
        self._server.process.send_signal(signal.SIGUSR1)
        event = self._server.wait_for("census")
        self.errors += [str(line) for line in self._server.log if line.get("level") == "error"]
        self._server.log.clear()
        now = self._caller.latency.GetLatency(GetLatencyRequest(), timeout=SECONDS)
        process = Path(f"/proc/{self._server.process.pid}")
        threads = _names_of_threads(process)
        pool_threads = cast("int", event["pool"])
        return Census(
            seconds=time.monotonic() - self._begun,
            rss_mib=int((process / "statm").read_text().split()[1]) * _MIB_PER_PAGE,
            threads=len(threads) - threads.count(_CORES_POOL) - pool_threads,
            core_threads=threads.count(_CORES_POOL),
            pool_threads=pool_threads,
            files=len(list((process / "fd").iterdir())),
            tasks=cast("int", event["tasks"]),
            running=now.running,
            queued=now.queued,
            objects=cast("dict[str, Any]", event["objects"]),
        )

    def quiet(self, before: Census | None = None) -> Census:
        """Waits until nothing exceeds `before` or the previous census.

        Returns what still does when the time is over.
        """
        ends_at = time.monotonic() + _QUIET_SECONDS
        last = before or self.take()
        while (now := self.take()).leaked(last) and time.monotonic() < ends_at:
            last = before or now
            time.sleep(1)
        return now


def _names_of_threads(process: Path) -> list[str]:
    """Returns the names of a process's threads; a thread may end while they are read."""
    names: list[str] = []
    for thread in (process / "task").iterdir():
        with suppress(OSError):
            names.append((thread / "comm").read_text().strip())
    return names
