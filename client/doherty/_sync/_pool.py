"""The connections of one client, and what carries out the actions of its calls."""

import threading
from typing import TYPE_CHECKING, Any

import grpc

from doherty._core._actions import Action, Actions, ChannelState, FetchKey, Pause, ResultT, Send
from doherty._core._dispatch import Dispatch
from doherty._sync._connection import Connection

if TYPE_CHECKING:
    from doherty._core._settings import Settings


class Pool:
    """Has one connection to each target."""

    def __init__(self, settings: "Settings") -> None:
        """Does not connect yet."""
        self.dispatch = Dispatch(settings)
        self._connections = tuple(Connection(target, settings) for target in settings.targets)
        self._pauses: set[threading.Event] = set()

    def run(self, actions: Actions[ResultT]) -> ResultT:
        """Carries out a call.

        Raises:
            DohertyError: It failed.
        """
        stopped = threading.Event()
        result: object = None
        try:
            while True:
                action = actions.send(result)
                try:
                    result = self.carry_out(action, stopped)
                except BaseException as interruption:
                    actions.throw(interruption)
                    raise
        except StopIteration as end:
            returned: ResultT = end.value
            return returned

    def carry_out(self, action: Action, stopped: threading.Event) -> object:
        """Carries out one action, and returns its result; setting `stopped` ends a pause."""
        match action:
            case Send():
                try:
                    return self._reply(action)
                except (grpc.RpcError, ValueError) as error:
                    return error
            case FetchKey():
                try:
                    return action.source()
                except Exception as error:  # noqa: BLE001 - the call raises it
                    return error
            case ChannelState():
                return self._connections[action.target.index].connectivity()
            case Pause():
                self._pause(action.seconds, stopped)
        return None

    def call(self, send: Send) -> Any:
        """Begins a stream.

        Raises:
            ValueError: The channel is closed.
        """
        rpc = self._connections[send.target.index].rpc(send.rpc)
        return rpc(send.request, timeout=send.timeout, metadata=send.metadata)

    def _reply(self, send: Send) -> Any:
        """Makes a call with one reply.

        Raises:
            grpc.RpcError: It failed.
            ValueError: The channel is closed.
        """
        if send.on_metadata is None:
            return self.call(send)
        rpc = self._connections[send.target.index].rpc(send.rpc)
        reply, call = rpc.with_call(send.request, timeout=send.timeout, metadata=send.metadata)
        send.on_metadata(call.initial_metadata(), call.trailing_metadata())
        return reply

    def _pause(self, seconds: float, stopped: threading.Event) -> None:
        self._pauses.add(stopped)
        try:
            if not self.dispatch.closed:
                stopped.wait(seconds)
        finally:
            self._pauses.discard(stopped)

    def close(self) -> None:
        """Cancels all calls and closes the connections."""
        self.dispatch.closed = True
        for stopped in tuple(self._pauses):
            stopped.set()
        for connection in self._connections:
            connection.close()
