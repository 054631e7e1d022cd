"""Puts code around a handler, whatever its kind."""

import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import grpc
import grpc.aio

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

    def set_trailing_metadata(self, metadata: Any) -> None:
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


class Around(grpc.aio.ServerInterceptor):
    """An interceptor that puts a coroutine around each handler's; it takes no part in the messages of a stream."""

    receives = False
    """Whether it gets the messages of a request, however many, as an iterator of bytes, and hands parsed ones on."""

    @abstractmethod
    def wrap(self, behavior: Behavior, method: Method) -> Behavior:
        """The behavior with what the interceptor does around it."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the handler, if there is one for the method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = Method(
            handler_call_details.method, handler.request_streaming, handler.request_deserializer or (lambda data: data)
        )
        behaviors: dict[tuple[bool, bool], Any] = {
            (False, False): handler.unary_unary,
            (False, True): handler.unary_stream,
            (True, False): handler.stream_unary,
            (True, True): handler.stream_stream,
        }
        behavior = self.wrap(_writing(behaviors[handler.request_streaming, handler.response_streaming]), method)
        deserializer = None if self.receives else handler.request_deserializer
        make = _MAKERS[handler.request_streaming or self.receives, handler.response_streaming]
        return make(behavior, deserializer, handler.response_serializer)


def surround(behavior: Behavior, arounds: Iterable[Around], method: Method) -> Behavior:
    """The behavior with interceptors around it, outermost first, for what is no RPC of its own."""
    for around in reversed(tuple(arounds)):
        behavior = around.wrap(behavior, method)
    return behavior


_MAKERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""How to make a handler that streams requests, or replies."""


def _writing(behavior: Any) -> Behavior:
    """Turns a handler that yields its replies into one that writes them, so that one kind of wrapper fits both."""
    if not inspect.isasyncgenfunction(behavior):
        return behavior  # type: ignore[no-any-return]  # handlers carry no types once they are registered

    async def write_all(request: Any, context: Any) -> None:
        async for reply in behavior(request, context):
            await context.write(reply)

    return write_all
