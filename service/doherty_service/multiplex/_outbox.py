"""The one queue that feeds a MultiplexGenerate."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doherty_service.multiplex._lane import Lane


class Outbox:
    """The lanes that have something to send, in the order in which they came to have it, each once."""

    def __init__(self) -> None:
        """There is nothing to send."""
        self._lanes: deque[Lane] = deque()
        self._arrival: asyncio.Future[None] | None = None

    def put(self, lane: "Lane") -> None:
        """Notes that a lane has something to send."""
        if not lane.in_outbox:
            lane.in_outbox = True
            self._lanes.append(lane)
            self.wake()

    def pop(self) -> "Lane | None":
        """Takes the first lane out; None where there is none."""
        if not self._lanes:
            return None
        lane = self._lanes.popleft()
        lane.in_outbox = False
        return lane

    def wake(self) -> None:
        """Lets whoever waits look again."""
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def wait(self) -> None:
        """Returns once there is a lane, or once somebody calls `wake`."""
        if not self._lanes:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
