"""Waits for requests and makes them out of bytes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.protobuf.message import DecodeError

from doherty_service import translation
from doherty_service._errors import InvalidRequestError, StalledSenderError, Violation, out_of_resources
from doherty_service.rpc._strangers import Stranger
from doherty_service.rpc._turns import Turns
from doherty_service.telemetry import awake

if TYPE_CHECKING:  # generic for type checkers only
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

_LOOKS = 4
"""How often the watch looks within the time that a request may take to arrive."""

_PARSED_SIZE = 8
"""How many times as large as its bytes a message may be in memory, roughly."""
_STRANGER_SECONDS = 5.0
"""How long a request may take to arrive from a caller without a key."""

Parse = Callable[[bytes], Any]


class ReceiveWatch:
    """Ends RPCs whose messages do not arrive. gRPC's core would wait for them for ever."""

    def __init__(self, timeout: float) -> None:
        """A message must have arrived `timeout` seconds after it is waited for."""
        self.timeout = timeout
        self.turns = Turns()
        self._waiting: dict[asyncio.Task[Any], tuple[float, float]] = {}
        """Since when a task waits for its message, by `time.monotonic()`, and for how many seconds at the most."""
        self._late: set[asyncio.Task[Any]] = set()

    async def receive(self, context: Context, method: str, parse: Parse, stranger: Stranger | None = None) -> Any:
        """Waits for the only message of a request, and parses it; core has refused one that is too large.

        Raises:
            StalledSenderError: it did not arrive in time.
            InvalidRequestError: there was none, there is too much in it, or it is not what the contract describes.
        """
        message = await self._next(context, stranger)
        if message is grpc.aio.EOF:
            raise _malformed("the call ended without a message")
        return await self._read(message, method, parse)

    async def receive_each(
        self, context: Context, method: str, parse: Parse, stranger: Stranger | None = None
    ) -> AsyncIterator[Any]:
        """Waits for one message after the other, and parses them.

        Raises:
            StalledSenderError: one did not arrive in time.
            InvalidRequestError: there is too much in one, or it is not what the contract describes.
        """
        while True:
            message = await self._next(context, stranger)
            if message is grpc.aio.EOF:
                return
            yield await self._read(message, method, parse)

    async def check_end(self, end: "RequestEnd", stranger: Stranger | None = None) -> None:
        """Makes sure that a request had only one message, and waits for its end if that has not come yet.

        Raises:
            StalledSenderError: it did not come in time.
            InvalidRequestError: there was another message.
        """
        if end.is_only is None:
            await self._in_time(end.wait(), stranger)
        if not end.is_only:
            raise _malformed("the call has more than one message")

    async def _next(self, context: Context, stranger: Stranger | None) -> Any:
        if stranger is None:
            return await self._in_time(context.read(), None)
        with stranger.sending():
            return await self._in_time(context.read(), stranger)

    async def _read(self, message: bytes, method: str, parse: Parse) -> Any:
        if len(message) > translation.SMALL_BYTES:
            await self.turns.take()
            await self.turns.share(translation.check_size(message, method))
        return parse_message(parse, message)

    async def _in_time(self, arriving: Coroutine[Any, Any, Any], stranger: Stranger | None) -> Any:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("gRPC runs each RPC in a task")
        timeout = self.timeout if stranger is None else min(self.timeout, _STRANGER_SECONDS)
        self._waiting[task] = time.monotonic(), timeout
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
            await asyncio.sleep(min(self.timeout, _STRANGER_SECONDS) / _LOOKS)
            for task, (since, timeout) in self._waiting.items():
                if awake.seconds_since(since) > timeout and task not in self._late:
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
        self._read: asyncio.Future[Any] | None = None
        """What the reading waits for."""
        self._arrival: asyncio.Future[None] | None = None
        self._step(None)

    async def wait(self) -> None:
        """Returns once `is_only` is known."""
        if self.is_only is None:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival

    def let_go(self) -> None:
        """Waits no longer: gRPC would keep the RPC as long as somebody does."""
        if self._read is not None:
            self._read.cancel()

    def _step(self, _: object) -> None:
        try:
            read = self._reading.send(None)
            read.add_done_callback(self._step)
            self._read = read
        except StopIteration as ended:
            self.is_only = ended.value is grpc.aio.EOF
        except (asyncio.CancelledError, grpc.aio.BaseError):
            self.is_only = True  # the RPC is over
        if self.is_only is not None and self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


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
