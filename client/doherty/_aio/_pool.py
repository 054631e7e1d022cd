"""The connections of one client on one event loop, and what carries out the actions of its calls."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from doherty._aio._connection import AsyncConnection
from doherty._aio._loop import cancels_task, running_loop, wait_for_call
from doherty._core._actions import Action, Actions, ChannelState, Pause, ResultT, Send
from doherty._core._dispatch import Dispatch
from doherty._core._errors import EventLoopError

if TYPE_CHECKING:
    from doherty._core._balance import Target
    from doherty._core._settings import Settings


class AsyncPool:
    """Has one connection to each target."""

    def __init__(self, settings: "Settings", *, multiplex: bool | int) -> None:
        """Belongs to the running event loop. Does not connect yet."""
        self.loop = running_loop()
        self.dispatch = Dispatch(settings)
        self._connections = tuple(AsyncConnection(target, settings, multiplex=multiplex) for target in settings.targets)
        self._pauses: set[asyncio.Event] = set()

    def connection(self, target: "Target") -> AsyncConnection:
        """The connection to a target."""
        return self._connections[target.index]

    def check_loop(self) -> None:
        """Checks that calls can be made here.

        Raises:
            EventLoopError: Another event loop runs, on which they would hang.
            ForkError: The process is not the one that made the client.
        """
        try:
            is_here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            is_here = False  # also in a fork that was made on the loop
        if is_here:
            return
        self.dispatch.check_process()
        running_loop()
        raise EventLoopError(
            "The AsyncClient belongs to the event loop that first used it: make one for each loop, or use Client."
        )

    async def run(self, actions: Actions[ResultT]) -> ResultT:
        """Carries out a call.

        Raises:
            DohertyError: It failed.
        """
        stopped = asyncio.Event()
        result: object = None
        try:
            while True:
                action = actions.send(result)
                try:
                    result = await self.carry_out(action, stopped)
                except BaseException as interruption:
                    actions.throw(interruption)
                    raise
        except StopIteration as end:
            returned: ResultT = end.value
            return returned

    async def carry_out(self, action: Action, stopped: asyncio.Event) -> object:
        """Carries out one action, and returns its result; setting `stopped` ends a pause."""
        match action:
            case Send():
                try:
                    return await wait_for_call(self.call(action))
                except (asyncio.CancelledError, grpc.RpcError, grpc.aio.UsageError) as error:
                    if cancels_task(error):
                        raise
                    return error
            case ChannelState():
                return self.connection(action.target).connectivity()
            case Pause():
                await self._pause(action.seconds, stopped)
        return None

    def call(self, send: Send) -> Any:
        """Calls gRPC.

        Raises:
            grpc.aio.UsageError: The channel is closed.
        """
        rpc = self.connection(send.target).rpc(send.rpc)
        return rpc(send.request, timeout=send.timeout, metadata=send.metadata)

    async def _pause(self, seconds: float, stopped: asyncio.Event) -> None:
        self._pauses.add(stopped)
        try:
            if not self.dispatch.closed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await stopped.wait()
        finally:
            self._pauses.discard(stopped)

    async def close(self) -> None:
        """Cancels all calls and closes the connections."""
        self.dispatch.closed = True
        for stopped in self._pauses:
            stopped.set()
        for connection in self._connections:
            await connection.close()
