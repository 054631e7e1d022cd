"""Puts code around a handler, whatever its kind."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import grpc
import grpc.aio

from doherty_service._errors import UnsupportedMethodError

if TYPE_CHECKING:  # generic for type checkers only
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler


class CallContext(Protocol):
    """What interceptors ask of a call: gRPC's context of an RPC, or that of one request of a MultiplexGenerate."""

    def peer(self) -> str:
        """Who calls, as "ipv4:127.0.0.1:50000"."""
        ...

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""
        ...

    def invocation_metadata(self) -> Any:
        """What the caller sent besides the request."""
        ...

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Sends something along with the status."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Ends the call with a status other than OK, and raises grpc.aio.AbortError."""
        ...

    def code(self) -> Any:
        """The status that was set."""
        ...


Behavior = Callable[[Any, CallContext], Awaitable[Any]]
"""A handler as grpc.aio calls it: takes the request (or the iterator of them) and returns the reply, or writes the
replies through the context and returns None."""


@dataclass(frozen=True, slots=True)
class Method:
    """The method that a behavior serves."""

    name: str
    """As "/doherty.v1.GenerationService/Generate"."""
    streams_requests: bool
    parse: Callable[[bytes], Any]
    """Makes a request out of its bytes."""


class Around(ABC):
    """Puts a coroutine around each handler's; it takes no part in the messages of a stream."""

    @abstractmethod
    def wrap(self, behavior: Behavior, method: Method) -> Behavior:
        """The behavior with what stands round it."""


def surround(behavior: Behavior, arounds: Iterable[Around], method: Method) -> Behavior:
    """The behavior with all that stands round it, outermost first."""
    for around in reversed(tuple(arounds)):
        behavior = around.wrap(behavior, method)
    return behavior


class SurroundingInterceptor(grpc.aio.ServerInterceptor):
    """Puts all that stands round a handler there, once for each method: for each call it would cost as much as they do.

    The handler gets the messages of the request, however many there are, as bytes that nobody has awaited yet: what is
    innermost awaits and parses them.
    """

    def __init__(self, arounds: Iterable[Around]) -> None:
        """The outermost comes first."""
        self._arounds = tuple(arounds)
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Finds the handler of the method; for one that nobody serves, one that says so to those who may know."""
        name = handler_call_details.method
        if name in self._handlers:
            return self._handlers[name]
        handler = await continuation(handler_call_details)
        if handler is None:
            return self._surrounded(_UNKNOWN, name)
        self._handlers[name] = self._surrounded(handler, name)
        return self._handlers[name]

    def _surrounded(self, handler: Handler, name: str) -> Handler:
        method = Method(name, handler.request_streaming, handler.request_deserializer or (lambda data: data))
        behaviors: dict[tuple[bool, bool], Any] = {
            (False, False): handler.unary_unary,
            (False, True): handler.unary_stream,
            (True, False): handler.stream_unary,
            (True, True): handler.stream_stream,
        }
        own = _writing(behaviors[handler.request_streaming, handler.response_streaming])
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(surround(own, self._arounds, method), None, handler.response_serializer)


async def _refuse(_: Any, __: Any) -> None:
    raise UnsupportedMethodError


_UNKNOWN: Handler = grpc.stream_stream_rpc_method_handler(_refuse)


def _writing(behavior: Any) -> Behavior:
    """Turns a handler that yields its replies into one that writes them, so that one kind of wrapper fits both."""
    if not inspect.isasyncgenfunction(behavior):
        return behavior  # type: ignore[no-any-return]  # handlers carry no types once they are registered

    async def write_all(request: Any, context: Any) -> None:
        async for reply in behavior(request, context):
            await context.write(reply)

    return write_all
