"""How late the event loop is."""

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn

_LOOK_SECONDS = 0.1
"""Whatever blocks the loop for longer than this is seen at least once."""


async def measure_lag(observe: Callable[[float], None]) -> NoReturn:
    """Tells `observe` again and again by how many seconds a timer was late, until it is cancelled."""
    while True:
        due = time.monotonic() + _LOOK_SECONDS
        await asyncio.sleep(_LOOK_SECONDS)
        observe(max(0.0, time.monotonic() - due))
