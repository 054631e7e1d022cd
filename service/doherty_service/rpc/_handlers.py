"""Handlers of methods, brought into one form: a coroutine, and a parser for its requests."""

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from doherty_service._errors import UnsupportedMethodError

if TYPE_CHECKING:  # generic for type checkers only
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler

Behavior = Callable[[Any, Any], Awaitable[Any]]
"""The coroutine of a handler. It takes the request, or an iterator of requests, and the RPC's record or context."""


def coroutine_of(handler: Handler) -> Behavior:
    """Returns the behavior of a handler as a coroutine. An async generator is wrapped: its replies are written."""
    behaviors: dict[tuple[bool, bool], Any] = {
        (False, False): handler.unary_unary,
        (False, True): handler.unary_stream,
        (True, False): handler.stream_unary,
        (True, True): handler.stream_stream,
    }
    behavior = behaviors[handler.request_streaming, handler.response_streaming]
    if not inspect.isasyncgenfunction(behavior):
        return behavior  # type: ignore[no-any-return]  # handlers carry no types once they are registered

    async def write_all(request: Any, context: Any) -> None:
        async for reply in behavior(request, context):
            await context.write(reply)

    return write_all


def parser_of(handler: Handler) -> Callable[[bytes], Any]:
    """Returns the function that makes a request from its bytes."""
    return handler.request_deserializer or (lambda data: data)


async def _refuse(_: Any, __: Any) -> None:
    raise UnsupportedMethodError


UNKNOWN: Handler = grpc.stream_stream_rpc_method_handler(_refuse)
"""The handler of methods that the server does not have."""
