"""The connections of a client on an event loop. Carries out the actions of its calls."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from doherty._aio._connection import AsyncConnection
from doherty._aio._loop import cancels_task, running_loop, wait_for_intercepted, wait_for_reply
from doherty._aio._multiplexed import MultiplexedCall
from doherty._aio._tasks import Tasks
from doherty._core._actions import Action, Actions, AskForTls, FetchKey, Pause, ResultT, Send
from doherty._core._dispatch import Dispatch
from doherty._core._errors import ClientClosedError, EventLoopError

if TYPE_CHECKING:
    from doherty._aio._multiplex import Multiplexer
    from doherty._core._balance import Target
    from doherty._core._obstacle import TlsUse
    from doherty._core._settings import Settings
    from doherty._core._unreachable import Address


class AsyncPool:
    """Has one connection to each target."""

    def __init__(self, settings: "Settings", *, multiplex: bool | int, owner: "AsyncPool | None" = None) -> None:
        """Belongs to the running event loop. Does not connect yet.

        Args:
            settings: The client's settings.
            multiplex: Whether requests share an RPC, or how many share one.
            owner: The pool that owns the connections, if this one only uses them.
        """
        self._owner = owner
        self.loop: asyncio.AbstractEventLoop
        self.dispatch: Dispatch
        self.connections: tuple[AsyncConnection, ...]
        self.pauses: set[asyncio.Event]
        self.tasks: Tasks
        self.probes: dict[Address, asyncio.Task[TlsUse | None]]
        """The running probes. All calls that need the same one share it."""
        if owner is not None:
            self.loop, self.dispatch = owner.loop, Dispatch(settings, owner.dispatch.shared)
            self.connections, self.pauses = owner.connections, owner.pauses
            self.tasks, self.probes = owner.tasks, owner.probes
        else:
            self.loop, self.dispatch = running_loop(), Dispatch(settings)
            self.tasks, self.probes = Tasks(), {}
            self.connections = tuple(AsyncConnection(target, settings, self.tasks) for target in settings.targets)
            self.pauses = set()
        self.multiplex = multiplex
        self.multiplexers: tuple[Multiplexer, ...] = self._choose_multiplexers()

    def _choose_multiplexers(self) -> "tuple[Multiplexer, ...]":
        """Returns one for each connection; none if requests do not share RPCs."""
        if not self.multiplex:
            return ()
        settings, owner = self.dispatch.settings, self._owner
        if owner and self._is_multiplexed_as(owner) and owner.dispatch.settings.has_metadata_of(settings):
            return owner.multiplexers
        from doherty._aio._multiplex import Multiplexer, max_requests_per_rpc  # noqa: PLC0415 - needed only with multiplex

        names_and_connections = zip(settings.targets, self.connections, strict=True)
        return tuple(
            Multiplexer(connection, max_requests_per_rpc(name, multiplex=self.multiplex))
            for name, connection in names_and_connections
        )

    def _is_multiplexed_as(self, other: "AsyncPool") -> bool:
        # True equals 1, which would mean one request per RPC.
        return self.multiplex == other.multiplex and (self.multiplex is True) is (other.multiplex is True)

    def connection(self, target: "Target") -> AsyncConnection:
        """Returns the connection to a target."""
        return self.connections[target.index]

    def check_loop(self) -> None:
        """Checks that calls can be made here.

        Raises:
            EventLoopError: Another event loop runs, on which calls would hang.
            ForkError: Another process created the client.
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
            DohertyError: The call failed.
        """
        result: object = None
        try:
            while True:
                action = actions.send(result)
                try:
                    result = await self.carry_out(action)
                except BaseException as interruption:
                    actions.throw(interruption)
                    raise
        except StopIteration as end:
            returned: ResultT = end.value
            return returned

    async def carry_out(self, action: Action, stopped: asyncio.Event | None = None) -> object:
        """Carries out one action, and returns its result; setting `stopped` ends a pause."""
        match action:
            case Send():
                try:
                    return await self._reply(action)
                except (asyncio.CancelledError, grpc.RpcError, grpc.aio.UsageError) as error:
                    if cancels_task(error):
                        raise
                    return error
            case FetchKey():
                from doherty._aio._key import fetch_key  # noqa: PLC0415 - most keys do not change

                fetching = self.tasks.start(fetch_key(action, self.tasks))
                try:
                    return await self._unless_closed(fetching, stopped)
                finally:
                    fetching.cancel()
            case AskForTls():
                return await self._unless_closed(self._probe(action), stopped)
            case Pause():
                with self._ending_with_client(stopped) as ended:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(action.seconds):
                            await ended.wait()
                    return ended.is_set()
        return None

    def call(self, send: Send) -> Any:
        """Starts a call.

        Raises:
            grpc.aio.UsageError: The channel is closed.
        """
        if self.multiplexers and not send.alone and send.rpc in ("Generate", "StreamGenerate"):
            return self.multiplexers[send.target.index].begin(send)
        rpc = self.connection(send.target).rpc(send.rpc)
        return rpc(send.request, timeout=send.timeout, metadata=send.metadata)

    async def _reply(self, send: Send) -> Any:
        """Makes a call with one reply.

        Raises:
            grpc.RpcError: The call failed.
            grpc.aio.UsageError: The channel is closed.
        """
        call = self.call(send)
        if isinstance(call, MultiplexedCall):
            reply = await call
        elif self.dispatch.settings.interceptors:
            reply = await wait_for_intercepted(call, self.tasks)
        else:
            reply = await wait_for_reply(call)
        if send.on_metadata is not None:
            send.on_metadata(await call.initial_metadata(), await call.trailing_metadata())
        return reply

    def _probe(self, action: AskForTls) -> "asyncio.Task[TlsUse | None]":
        from doherty._probe import probe_async  # noqa: PLC0415 - few calls need it, and it loads ssl

        address = action.address
        if address not in self.probes:
            self.probes[address] = self.tasks.start(probe_async(address, action.seconds))
            self.probes[address].add_done_callback(lambda _: self.probes.pop(address))
        return self.probes[address]

    async def _unless_closed(self, work: "asyncio.Task[Any]", stopped: asyncio.Event | None) -> object:
        """Returns the result of `work`, or a ClientClosedError as soon as the client is closed or `stopped` is set."""
        with self._ending_with_client(stopped) as ended:
            ending = self.tasks.start(ended.wait())
            try:
                await asyncio.wait((work, ending), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ending.cancel()
        return work.result() if work.done() and not work.cancelled() else ClientClosedError("The client was closed.")

    @contextmanager
    def _ending_with_client(self, stopped: asyncio.Event | None) -> Iterator[asyncio.Event]:
        """Yields an event that is set when the client is closed: `stopped`, or else a new one."""
        ended = stopped or asyncio.Event()
        if self.dispatch.shared.disconnected:
            ended.set()
        self.pauses.add(ended)
        try:
            yield ended
        finally:
            self.pauses.discard(ended)

    async def close(self) -> None:
        """Begins no more calls. If the connections are its own, also cancels all calls and closes the connections.

        Returns when all tasks of the connections have ended.
        """
        self.dispatch.closed = True
        if self._owner is not None:
            if self.multiplexers is not self._owner.multiplexers:
                for multiplexer in self.multiplexers:
                    multiplexer.retire()
            return
        self.dispatch.shared.disconnected = True
        for stopped in self.pauses:
            stopped.set()
        for connection in self.connections:
            await connection.close()
        await self.tasks.end(connection.channel for connection in self.connections)
