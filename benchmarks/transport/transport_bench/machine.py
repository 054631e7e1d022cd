"""The machine: assigns cores, and reads the CPU time and memory of processes."""

import os
import platform
import time
from functools import cache
from pathlib import Path

from transport_bench.errors import BenchmarkError

_CPUCLOCK_SCHED = 2


@cache
def cores() -> tuple[int, int]:
    """Returns the core of the server and the core of everything else. The first call determines them.

    Raises:
        BenchmarkError: There is only one core.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) == 1:
        raise BenchmarkError("The server and its load need a core each, and there is only one.")
    return usable[-1], usable[0]


def cpu_seconds(process: int) -> float:
    """Returns the CPU time of all threads of a process, in seconds."""
    # The number of a process's clock, as clock_getcpuclockid makes it.
    return time.clock_gettime(~process << 3 | _CPUCLOCK_SCHED)


def children(process: int) -> tuple[int, ...]:
    """Returns the running child processes of a process."""
    lists = [path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return tuple(int(child) for of_thread in lists for child in of_thread)


def resident_bytes(process: int) -> int:
    """Returns the resident memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def busy_seconds() -> float:
    """Returns the time for which the cores of the machine were busy since it was started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    user, nice, system, _idle, _wait, interrupts, soft_interrupts, stolen = fields
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, str | int]:
    """Describes the machine for readers of the figures."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
