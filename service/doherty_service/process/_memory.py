"""Gives memory back to the system that was needed for a while."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_LOOK_SECONDS = 10.0
_MUCH_BYTES = 64 << 20
_TIMES = 6
"""How often memory is given back once the process has grown; what it grew by may be freed only by a later timeout."""


async def give_memory_back() -> None:
    """Watches the size of the process; runs until it is cancelled.

    glibc keeps what was freed between pieces that are still in use, so that a burst of large messages would stay
    resident for good. Elsewhere nothing is done.
    """
    trim = _find_trim()
    base, left = 0 if trim is None else _resident_bytes(), 0
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if trim is None:
            continue
        if _resident_bytes() > base + _MUCH_BYTES:
            left = _TIMES
            base = _resident_bytes()
        if left:
            left -= 1
            await asyncio.to_thread(trim, 0)
        base = min(base, _resident_bytes())


def _find_trim() -> Callable[[int], int] | None:
    """The function of glibc, where there is one."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    return trim


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
