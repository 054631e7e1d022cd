"""Waits for requests and makes them out of bytes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from doherty_service._errors import InvalidRequestError, StalledSenderError, Violation, out_of_resources

_LOOKS = 4
"""How often the watch looks within the time that a request may take to arrive."""

_PARSED_SIZE = 8
"""How many times as large as its bytes a message may be in memory, roughly."""

Parse = Callable[[bytes], Any]


class ReceiveWatch:
    """Ends RPCs whose request does not arrive. gRPC's core would wait for it for ever."""

    def __init__(self, timeout: float) -> None:
        """A request must have arrived `timeout` seconds after its RPC began."""
        self._timeout = timeout
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()

    async def receive(self, context: grpc.aio.ServicerContext[Any, Any], parse: Parse) -> Any:
        """Waits for the only message of a request, and parses it; core has refused one that is too large.

        Raises:
            StalledSenderError: it did not arrive in time.
            InvalidRequestError: there was none, or it is not what the contract describes.
        """
        message: Any = await self._in_time(context.read())
        if message is grpc.aio.EOF:
            raise _malformed("the call ended without a message")
        return parse_message(parse, message)

    async def check_end(self, end: "RequestEnd") -> None:
        """Makes sure that a request had only one message, and waits for its end if that has not come yet.

        Raises:
            StalledSenderError: it did not come in time.
            InvalidRequestError: there was another message.
        """
        if end.is_only is None:
            await self._in_time(end.wait())
        if not end.is_only:
            raise _malformed("the call has more than one message")

    async def _in_time(self, arriving: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("gRPC runs each RPC in a task")
        self._waiting[task] = time.monotonic()
        try:
            return await arriving
        except asyncio.CancelledError:
            if task in self._late and not task.uncancel():
                raise StalledSenderError from None
            raise  # its caller has left, too
        finally:
            del self._waiting[task]
            self._late.discard(task)

    async def run(self) -> None:
        """Looks for requests that are late; runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._timeout / _LOOKS)
            earliest = time.monotonic() - self._timeout
            for task, since in self._waiting.items():
                if since < earliest and task not in self._late:
                    self._late.add(task)
                    task.cancel()


class RequestEnd:
    """Reads what is behind the only message of a request while the request is being answered.

    To wait for it first would put a turn of the event loop before each first token. It is read without a task, as
    messages are written (`generation.MessageWriter`).
    """

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.is_only: bool | None = None
        """Whether there was nothing behind the message; None while that is not known."""
        self._reading: Coroutine[Any, Any, Any] = context.read()
        self._arrival: asyncio.Future[None] | None = None
        self._step(None)

    async def wait(self) -> None:
        """Returns once `is_only` is known."""
        if self.is_only is None:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival

    def _step(self, _: object) -> None:
        try:
            self._reading.send(None).add_done_callback(self._step)
        except StopIteration as read:
            self.is_only = read.value is grpc.aio.EOF
        except (asyncio.CancelledError, grpc.aio.BaseError):
            self.is_only = True  # the RPC is over
        if self.is_only is not None and self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


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
        UnavailableError: there is no memory for it.
    """
    try:
        return parse(data)
    except DecodeError as error:
        if _lacked_memory(error, data):
            raise out_of_resources() from None
        raise _malformed("the message is not one that the contract describes") from None


def _lacked_memory(error: DecodeError, data: bytes) -> bool:
    """Whether protobuf had no memory for a message: newer releases say so in a word, older ones not at all."""
    if "alloc" in str(error):
        return True
    try:
        bytearray(_PARSED_SIZE * len(data))
    except MemoryError:
        return True
    return False


def _malformed(what: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("", what)], reason="MALFORMED_MESSAGE")
