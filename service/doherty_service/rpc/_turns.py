"""Keeps work that grows with messages from piling up on the event loop."""

import asyncio
from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


class Turns:
    """Gives the pieces of such work their turns: one piece in a turn of the loop, whichever RPC it is for.

    Between two pieces the loop does all else that has come. So what one message costs, and what a thousand of them cost
    together, delays others by one piece.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # which lets those who wait have it in the order in which they came

    async def take(self) -> None:
        """Waits for the turn of the caller's next piece, which must follow without another await."""
        async with self._turn:
            await asyncio.sleep(0)

    async def share(self, work: Generator[None, None, Result]) -> Result:
        """Does work that yields after each piece, a piece in each turn; returns what it returns."""
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: Result = done.value
                return result
            await self.take()
