"""Measures the delay of the event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn

_INTERVAL_SECONDS = 0.1
"""Everything that blocks the loop for longer than this is measured at least once."""


async def measure_lag(observe: Callable[[float], None]) -> NoReturn:
    """Repeatedly calls `observe` with the delay of a timer in seconds. Runs until it is cancelled."""
    while True:
        due = time.monotonic() + _INTERVAL_SECONDS
        await asyncio.sleep(_INTERVAL_SECONDS)
        observe(max(0.0, time.monotonic() - due))
