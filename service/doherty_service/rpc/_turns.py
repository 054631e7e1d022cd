"""Divides work that grows with the size of a message into slices."""

import asyncio
from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


class Turns:
    """Runs one slice of such work per turn of the event loop, over all RPCs together.

    Between two slices the event loop does everything else that is ready. So large messages delay other work by one
    slice at most, even if there are a thousand of them.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # first come, first served

    async def take(self) -> None:
        """Waits for a turn. The caller's next slice must follow without another await."""
        async with self._turn:
            await asyncio.sleep(0)

    async def run(self, work: Generator[None, None, Result]) -> Result:
        """Runs a generator that yields after each slice, one slice per turn, and returns its result."""
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: Result = done.value
                return result
            await self.take()
