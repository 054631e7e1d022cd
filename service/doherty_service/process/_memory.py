"""Limits freed memory, and returns it to the operating system."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_LIMITS = {_M_MMAP_THRESHOLD: 256 << 10, _M_TRIM_THRESHOLD: 4 << 20, _M_ARENA_MAX: 2}

_CHECK_SECONDS = 10.0
_GROWTH_BYTES = 4 << 20
_TRIMS = 6
"""Number of trims after the process has grown. Several are needed, because memory may be freed only after a timeout."""


def limit_free_memory() -> None:
    """Limits how much freed memory glibc keeps. Must be called before threads are started.

    By default, glibc raises its thresholds to the size of the largest freed block, up to 32 MiB, and has eight arenas
    per core. Each arena keeps free memory, and a burst of large messages uses other arenas each time: so the process
    would grow for hours. With other C libraries, or if the operator has set limits, this does nothing.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    try:
        mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter, value in _LIMITS.items():
        mallopt(parameter, value)


async def give_memory_back() -> None:
    """Trims the heap after the process has grown. Runs until it is cancelled.

    glibc keeps freed memory that lies between blocks in use, so a burst of large messages would stay resident forever.
    With other C libraries this does nothing.
    """
    trim = _find_trim()
    base, trims_left = 0 if trim is None else _resident_bytes(), 0
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        if trim is None:
            continue
        if _resident_bytes() > base + _GROWTH_BYTES:
            trims_left = _TRIMS
            base = _resident_bytes()
        if trims_left:
            trims_left -= 1
            await asyncio.to_thread(trim, 0)
        base = min(base, _resident_bytes())


def _find_trim() -> Callable[[int], int] | None:
    """Returns glibc's malloc_trim, or None for other C libraries."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    return trim


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
