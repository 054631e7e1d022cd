"""Reads the memory and the CPU time of a process from Linux, and the memory of this one from glibc."""

import ctypes
import time
from pathlib import Path

import pytest

from support.server import ServerProcess

_CPUCLOCK_SCHED = 2
_MALLINFO = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO)


_LIBC = ctypes.CDLL(None)

needs_allocated_bytes = pytest.mark.skipif(not hasattr(_LIBC, "mallinfo2"), reason="needs glibc 2.33 or newer")


def allocated_bytes() -> int:
    """Returns the number of bytes that this process has allocated, including those of C libraries such as protobuf."""
    _LIBC.mallinfo2.restype = _Mallinfo
    info = _LIBC.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def cpu_seconds(process: int) -> float:
    """Returns the CPU time of all threads of a process, in seconds."""
    return time.clock_gettime(~process << 3 | _CPUCLOCK_SCHED)  # the clock that clock_getcpuclockid() returns


def peak_bytes(server: ServerProcess) -> int:
    """Returns the peak of the resident memory so far, in bytes."""
    return _read(server, "VmHWM")


def resident_bytes(server: ServerProcess) -> int:
    """Returns the resident memory, in bytes."""
    return _read(server, "VmRSS")


def _read(server: ServerProcess, name: str) -> int:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
