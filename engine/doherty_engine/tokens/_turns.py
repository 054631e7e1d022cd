"""Runs blocking functions in threads, and shares the threads fairly among API keys."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

ArgumentsT = TypeVarTuple("ArgumentsT")
ResultT = TypeVar("ResultT")


class FairThreads:
    """Runs a few functions at a time. Keys take turns.

    Those that wait do so on the event loop, because the threads are shared with other work of the server.
    """

    def __init__(self, size: int, *, per_key: int) -> None:
        """`size` is how many functions run at the same time, and `per_key` how many of the same key."""
        self._size = size
        self._per_key = per_key
        self._running: Counter[str] = Counter()
        """By key."""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """The calls of each key that wait. The keys are in the order of their turns."""

    async def run(self, key: str, function: Callable[[*ArgumentsT], ResultT], *arguments: *ArgumentsT) -> ResultT:
        """Waits for a turn of the key, and runs the function.

        If the caller is cancelled, a function that runs goes on, and keeps its turn; others are never called.
        """
        if self._running[key] < self._per_key and self._running.total() < self._size:
            self._running[key] += 1
        else:
            await self._wait(key)
        return await asyncio.shield(asyncio.ensure_future(self._run(key, function, *arguments)))

    async def _run(self, key: str, function: Callable[[*ArgumentsT], ResultT], *arguments: *ArgumentsT) -> ResultT:
        try:
            return await asyncio.to_thread(function, *arguments)
        finally:
            self._end_turn(key)

    async def _wait(self, key: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was cancelled when it already had the turn
                self._end_turn(key)
            raise

    def _end_turn(self, key: str) -> None:
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]
        for other in [other for other in self._waiting if self._running[other] < self._per_key]:
            turns = self._waiting.pop(other)
            while turns and turns[0].cancelled():
                turns.popleft()
            if turns:
                self._running[other] += 1
                turns.popleft().set_result(None)
                if turns:
                    self._waiting[other] = turns  # behind the other keys
                return
