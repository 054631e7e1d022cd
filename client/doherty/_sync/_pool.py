"""The connections of one client, and what carries out the actions of its calls."""

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from doherty._core._actions import Action, Actions, ChannelState, Pause, ResultT, Send
from doherty._core._dispatch import Dispatch
from doherty._sync._alarm import Alarms
from doherty._sync._connection import Connection

if TYPE_CHECKING:
    from doherty._core._balance import Target
    from doherty._core._settings import Settings


class Pool:
    """Has one connection to each target."""

    def __init__(self, settings: "Settings") -> None:
        """Does not connect yet."""
        self.dispatch = Dispatch(settings)
        self._connections = tuple(Connection(target, settings) for target in settings.targets)
        self._pauses: set[threading.Event] = set()
        self.alarms = Alarms()

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
                    return self.call(action)
                except (grpc.RpcError, ValueError) as error:
                    return error
            case ChannelState():
                return self._connections[action.target.index].connectivity()
            case Pause():
                self._pause(action.seconds, stopped)
        return None

    def call(self, send: Send) -> Any:
        """Calls gRPC.

        Raises:
            grpc.RpcError: A call with one reply failed.
            ValueError: The channel is closed.
        """
        rpc = self._connections[send.target.index].rpc(send.rpc)
        return rpc(send.request, timeout=send.timeout, metadata=send.metadata)

    def follow(self, call: Any, target: "Target") -> None:
        """Counts a stream that was begun as running until it ends, however that happens."""
        self._connections[target.index].follow(call, partial(self.dispatch.targets.end, target))

    def _pause(self, seconds: float, stopped: threading.Event) -> None:
        self._pauses.add(stopped)
        try:
            if not self.dispatch.closed:
                stopped.wait(seconds)
        finally:
            self._pauses.discard(stopped)

    def close(self) -> None:
        """Cancels all calls and closes the connections, and returns when the threads behind them have ended."""
        self.dispatch.closed = True
        for stopped in tuple(self._pauses):
            stopped.set()
        for connection in self._connections:
            connection.close()
        self.alarms.stop()
