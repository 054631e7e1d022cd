"""What a server holds, as the system, the server itself and its API tell it."""

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
"""The folder on the server's PYTHONPATH that lets it tell."""

COLUMNS = ("seconds", "RSS (MiB)", "threads", "threads of core", "open files", "tasks", "running", "queued")

KEPT = {
    "doherty_engine._outputs.TokenLogprob": "the synthetic engine keeps those that it has made once",
    "doherty_service.admission._pace._Answer": "the latest answers, whose number is bounded",
    "doherty_service.telemetry._histogram.Histogram": "one for each set of labels",
    "doherty_service.telemetry._window.Outcome": "one for each way to end, for each second of the window",
    "doherty_service.telemetry._window.Refusal": "one for each reason, for each second of the window",
    "doherty_service.telemetry._window.Tally": "one for each second of the window",
    "doherty_service.telemetry._window._Second": "one for each second of the window",
    "doherty_service.telemetry._window._Latencies": "one for each second of the window",
}
"""What may be more than before, within bounds, and why."""

_MIB_PER_PAGE = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
_CORES_POOL = "event_engine"
_QUIET_SECONDS = 90.0
"""How long connections that were left half-open, and core's own threads, may take to go."""


@dataclass(frozen=True, slots=True)
class Census:
    """What a server holds at one moment."""

    seconds: float
    """Since the soak began."""
    rss_mib: float
    threads: int
    """But for those of core."""
    core_threads: int
    """Of core's pool, which grows at a busy moment and seldom shrinks."""
    files: int
    """Open file descriptors: a connection is one."""
    tasks: int
    """Of asyncio."""
    running: int
    queued: int
    objects: dict[str, int]
    """How many instances there are of each class of the server, of its engine and of grpc."""

    @property
    def line(self) -> tuple[float, ...]:
        """What stands under COLUMNS."""
        held = (self.threads, self.core_threads, self.files, self.tasks, self.running, self.queued)
        return (round(self.seconds), round(self.rss_mib, 1), *held)

    def leaked(self, before: "Census") -> dict[str, int]:
        """What there is more of than `before`."""
        names = ("threads", "files", "tasks", "running", "queued")
        more = {name: getattr(self, name) - getattr(before, name) for name in names}
        more |= {name: count - before.objects.get(name, 0) for name, count in self.objects.items() if name not in KEPT}
        return {name: count for name, count in more.items() if count > 0}


class Taker:
    """Takes censuses of a server that was started with PROBE."""

    def __init__(self, server: ServerProcess, caller: Caller) -> None:
        """Asks through `caller`."""
        self._server = server
        self._caller = caller
        self._begun = time.monotonic()
        self.errors: list[str] = []
        """What the server logged as an error."""

    def take(self) -> Census:
        """Takes one, and forgets the log up to it."""
        self._server.process.send_signal(signal.SIGUSR1)
        told = self._server.wait_for("census")
        self.errors += [str(line) for line in self._server.log if line.get("level") == "error"]
        self._server.log.clear()
        now = self._caller.latency.GetLatency(GetLatencyRequest(), timeout=SECONDS)
        process = Path(f"/proc/{self._server.process.pid}")
        threads = _names_of_threads(process)
        return Census(
            seconds=time.monotonic() - self._begun,
            rss_mib=int((process / "statm").read_text().split()[1]) * _MIB_PER_PAGE,
            threads=len(threads) - threads.count(_CORES_POOL),
            core_threads=threads.count(_CORES_POOL),
            files=len(list((process / "fd").iterdir())),
            tasks=cast("int", told["tasks"]),
            running=now.running,
            queued=now.queued,
            objects=cast("dict[str, Any]", told["objects"]),
        )

    def quiet(self, before: Census | None = None) -> Census:
        """Waits until no more is left than `before`, or than a moment ago; returns what is left when time is up."""
        ends_at = time.monotonic() + _QUIET_SECONDS
        last = before or self.take()
        while (now := self.take()).leaked(last) and time.monotonic() < ends_at:
            last = before or now
            time.sleep(1)
        return now


def _names_of_threads(process: Path) -> list[str]:
    """The names of a process's threads; one may end while they are read."""
    names: list[str] = []
    for thread in (process / "task").iterdir():
        with suppress(OSError):
            names.append((thread / "comm").read_text().strip())
    return names
