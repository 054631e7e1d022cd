"""Waits for requests and makes them out of bytes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import grpc.aio
from google.protobuf.message import DecodeError

from doherty_service._errors import InvalidRequestError, StalledSenderError, Violation
from doherty_service.interceptors._handlers import Around, Behavior, CallContext, Method
from doherty_service.latency import current_call

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class ReceivingInterceptor(Around):
    """Stands innermost: for whoever is refused by another one, nothing is read and nothing parsed.

    Where core waits for the message of a unary request, it does so for ever, before any interceptor; and where core
    parses one that does not parse, the call ends as UNKNOWN with the text of the exception.
    """

    def __init__(self, patience: float) -> None:
        """The message of a unary request must be there within `patience` seconds."""
        self._patience = patience

    def wrap(self, behavior: Behavior, method: Method) -> Behavior:
        """Runs the behavior with parsed requests."""

        async def received_each(messages: AsyncIterator[bytes], context: CallContext) -> Any:
            return await behavior(_parse_each(method.parse, messages), context)

        async def received(_: AsyncIterator[bytes], context: Any) -> Any:
            message = await self._receive(context)
            # A request counts from when it is there, not from when its first byte is.
            current_call().received = time.monotonic()
            return await behavior(_parse(method.parse, message), context)

        return received_each if method.streams_requests else received

    async def _receive(self, context: ServicerContext) -> bytes:
        """Waits for the only message of a request; core has refused one that is too large."""
        try:
            async with asyncio.timeout(self._patience):
                message = await context.read()
        except TimeoutError:
            raise StalledSenderError from None
        if message is grpc.aio.EOF:
            raise _malformed("the call ended without a message")
        return cast("bytes", message)


def _parse(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError:
        raise _malformed("the message is not one that the contract describes") from None


async def _parse_each(parse: Callable[[bytes], Any], messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for data in messages:
        yield _parse(parse, data)


def _malformed(what: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("", what)], reason="MALFORMED_MESSAGE")
