"""The connections of a client. Carries out the actions of its calls."""

import threading
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from doherty._core._actions import Action, Actions, AskForTls, FetchKey, Pause, ResultT, Send
from doherty._core._dispatch import Dispatch
from doherty._sync._alarm import Alarms
from doherty._sync._connection import Connection
from doherty._sync._failed_call import FailedCall, result_of
from doherty._sync._interrupt import DeferredInterrupt, can_be_interrupted
from doherty._sync._probes import Probes

if TYPE_CHECKING:
    from doherty._core._balance import Target
    from doherty._core._settings import Settings


class Pool:
    """Has one connection to each target."""

    def __init__(self, settings: "Settings", owner: "Pool | None" = None) -> None:
        """Does not connect yet. `owner` is the pool that owns the connections, if this one only uses them."""
        self.owner = owner
        self.dispatch: Dispatch
        self.connections: tuple[Connection, ...]
        self.pauses: set[threading.Event]
        self.alarms: Alarms
        self.probes: Probes
        if owner is not None:
            self.dispatch = Dispatch(settings, owner.dispatch.shared)
            self.connections, self.pauses = owner.connections, owner.pauses
            self.alarms, self.probes = owner.alarms, owner.probes
        else:
            self.dispatch = Dispatch(settings)
            self.connections = tuple(Connection(target, settings) for target in settings.targets)
            self.pauses = set()
            self.alarms = Alarms()
            self.probes = Probes()

    def derive(self, settings: "Settings") -> "Pool":
        """Returns a pool with other settings on the same connections."""
        return Pool(settings, self.owner or self)

    def run(self, actions: Actions[ResultT]) -> ResultT:
        """Carries out a call.

        Raises:
            DohertyError: The call failed.
        """
        result: object = None
        try:
            while True:
                action = actions.send(result)
                try:
                    result = self.carry_out(action)
                except BaseException as interruption:
                    actions.throw(interruption)
                    raise
        except StopIteration as end:
            returned: ResultT = end.value
            return returned

    def carry_out(self, action: Action, stopped: threading.Event | None = None) -> object:
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
                except Exception as error:  # noqa: BLE001 - the call raises the returned error
                    return error
            case AskForTls():
                return self.probes.ask(action.address, action.seconds)
        return self._pause(action.seconds, stopped or threading.Event()) if isinstance(action, Pause) else None

    def call(self, send: Send) -> Any:
        """Starts a stream, or makes a call with one reply.

        Raises:
            ValueError: The channel is closed.
        """
        rpc = self.connections[send.target.index].rpc(send.rpc)
        try:
            return rpc(send.request, timeout=send.timeout, metadata=send.metadata)
        except Exception:
            raise
        except BaseException as interruption:
            # gRPC cancels an RPC that nothing refers to, but a traceback that is kept refers to it.
            traceback.clear_frames(interruption.__traceback__)
            raise

    def follow(self, call: Any, target: "Target") -> None:
        """Counts a stream as running until it ends, for whatever reason."""
        self.connections[target.index].follow(call, partial(self.dispatch.targets.end, target))

    def _reply(self, send: Send) -> Any:
        """Makes a call with one reply, and returns the reply, or the error of a call that can be interrupted.

        Raises:
            grpc.RpcError: The call failed.
            ValueError: The channel is closed.
        """
        # An interceptor may wait for a long time, and a deferred Ctrl-C could not end that wait. While the interpreter
        # exits, gRPC may be unable to start its thread.
        is_exiting = not threading.main_thread().is_alive()
        if can_be_interrupted() and not is_exiting and not self.dispatch.settings.interceptors:
            return self._interruptible_reply(send)
        if send.on_metadata is None:
            return self.call(send)
        rpc = self.connections[send.target.index].rpc(send.rpc)
        reply, call = rpc.with_call(send.request, timeout=send.timeout, metadata=send.metadata)
        send.on_metadata(call.initial_metadata(), call.trailing_metadata())
        return reply

    def _interruptible_reply(self, send: Send) -> Any:
        """Makes a call with one reply, and returns the reply, or a FailedCall.

        Ctrl-C cancels the call instead of interrupting gRPC's code. This takes 0.1 ms longer than a blocking call,
        because gRPC serves the call in a thread of its own.

        Raises:
            ValueError: The channel is closed.
        """
        connection = self.connections[send.target.index]
        with DeferredInterrupt() as interrupt:
            call = connection.rpc(send.rpc).future(send.request, timeout=send.timeout, metadata=send.metadata)
            try:
                connection.follow(call)
                interrupt.cancel_with(call.cancel)
                result = result_of(call)
                if send.on_metadata is not None and not isinstance(result, FailedCall):
                    send.on_metadata(call.initial_metadata(), call.trailing_metadata())
            except BaseException:
                call.cancel()
                raise
            finally:
                interrupt.cancel_with(None)
                del call  # gRPC takes a lock when the call is dropped
        return result

    def _pause(self, seconds: float, stopped: threading.Event) -> bool:
        self.pauses.add(stopped)
        try:
            with DeferredInterrupt(stopped.set):
                return self.dispatch.shared.disconnected or stopped.wait(seconds)
        finally:
            self.pauses.discard(stopped)

    def close(self) -> None:
        """Begins no more calls. If the connections are its own, also cancels all calls and closes the connections.

        Returns when the threads behind the connections have ended.
        """
        self.dispatch.closed = True
        if self.owner is not None:
            return
        self.dispatch.shared.disconnected = True
        with DeferredInterrupt():
            for stopped in tuple(self.pauses):
                stopped.set()
        for connection in self.connections:
            connection.close()
        self.alarms.stop()
        self.probes.stop()
