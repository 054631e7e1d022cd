"""Waits for requests and makes them out of bytes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from doherty_service._errors import InvalidRequestError, StalledSenderError, Violation

_LOOKS = 4
"""How often the watch looks within the time that a request may take to arrive."""

Parse = Callable[[bytes], Any]


class ReceiveWatch:
    """Ends RPCs whose request does not arrive. gRPC's core would wait for it for ever."""

    def __init__(self, timeout: float) -> None:
        """A request must have arrived `timeout` seconds after its RPC began."""
        self._timeout = timeout
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()

    async def receive(self, context: grpc.aio.ServicerContext[Any, Any], parse: Parse) -> Any:
        """Waits for the only message of a request and for the end behind it, and parses it.

        Core has refused a message that is too large.

        Raises:
            StalledSenderError: it did not arrive in time.
            InvalidRequestError: there was none or more than one, or it is not what the contract describes.
        """
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("gRPC runs each RPC in a task")
        self._waiting[task] = time.monotonic()
        try:
            message: Any = await context.read()
            more: Any = message if message is grpc.aio.EOF else await context.read()
        except asyncio.CancelledError:
            if task in self._late and not task.uncancel():
                raise StalledSenderError from None
            raise  # its caller has left, too
        finally:
            del self._waiting[task]
            self._late.discard(task)
        if message is grpc.aio.EOF:
            raise _malformed("the call ended without a message")
        if more is not grpc.aio.EOF:
            raise _malformed("the call has more than one message")
        return parse_message(parse, message)

    async def run(self) -> None:
        """Looks for requests that are late; runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._timeout / _LOOKS)
            earliest = time.monotonic() - self._timeout
            for task, since in self._waiting.items():
                if since < earliest and task not in self._late:
                    self._late.add(task)
                    task.cancel()


async def parse_each(parse: Parse, messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """Parses a stream of messages.

    Raises:
        InvalidRequestError: one is not what the contract describes.
    """
    async for data in messages:
        yield parse_message(parse, data)


def parse_message(parse: Parse, data: bytes) -> Any:
    """Makes a message out of bytes.

    Raises:
        InvalidRequestError: it is not what the contract describes.
    """
    try:
        return parse(data)
    except DecodeError:
        raise _malformed("the message is not one that the contract describes") from None


def _malformed(what: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("", what)], reason="MALFORMED_MESSAGE")
