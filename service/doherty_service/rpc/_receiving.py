"""Receives and parses requests."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from doherty_service import translation
from doherty_service._call import Call
from doherty_service._errors import InvalidRequestError, StalledSenderError, Violation, out_of_resources
from doherty_service.rpc._turns import Turns
from doherty_service.rpc._unauthenticated import UnauthenticatedCall
from doherty_service.telemetry import awake

_CHECKS = 4
"""How often the watch checks within the timeout."""

_PARSED_SIZE = 8
"""The approximate maximum size of a parsed message, as a multiple of its size on the wire."""
_UNAUTHENTICATED_SECONDS = 5.0
"""The timeout for requests of callers without a key."""

Parse = Callable[[bytes], Any]


class ReceiveWatch:
    """Ends RPCs whose messages do not arrive. gRPC's core would wait for them forever."""

    def __init__(self, timeout: float) -> None:
        """A message must arrive within `timeout` seconds."""
        self.timeout = timeout
        self.turns = Turns()
        self._waiting: dict[asyncio.Task[Any], tuple[float, float]] = {}
        """By task: when it began to wait for its message (`time.monotonic()`), and its timeout in seconds."""
        self._late: set[asyncio.Task[Any]] = set()

    async def receive(
        self, call: Call, method: str, parse: Parse, unauthenticated: UnauthenticatedCall | None = None
    ) -> Any:
        """Receives and parses the only message of a request. Too large messages were refused by gRPC's core.

        Raises:
            StalledSenderError: The message did not arrive in time.
            InvalidRequestError: There was no message, it has too many fields, or it cannot be parsed.
        """
        message = await self._next(call, unauthenticated)
        if message is grpc.aio.EOF:
            raise _malformed("the call ended without a message")
        return await self._parse(message, method, parse)

    async def receive_each(
        self, call: Call, method: str, parse: Parse, unauthenticated: UnauthenticatedCall | None = None
    ) -> AsyncIterator[Any]:
        """Receives and parses messages one by one.

        Raises:
            StalledSenderError: A message did not arrive in time.
            InvalidRequestError: A message has too many fields, or it cannot be parsed.
        """
        while True:
            message = await self._next(call, unauthenticated)
            if message is grpc.aio.EOF:
                return
            yield await self._parse(message, method, parse)

    async def check_end(self, end: "RequestEnd", unauthenticated: UnauthenticatedCall | None = None) -> None:
        """Checks that a request had only one message. Waits for the end of the request if necessary.

        Raises:
            StalledSenderError: The end did not come in time.
            InvalidRequestError: There was a second message.
        """
        if end.is_only is None:
            await self._wait(end.wait(), unauthenticated)
        if not end.is_only:
            raise _malformed("the call has more than one message")

    async def _next(self, call: Call, unauthenticated: UnauthenticatedCall | None) -> Any:
        if call.has_message:
            return await call.read()
        if unauthenticated is None:
            return await self._wait(call.read(), None)
        with unauthenticated.track_message():
            return await self._wait(call.read(), unauthenticated)

    async def _parse(self, message: bytes, method: str, parse: Parse) -> Any:
        if len(message) > translation.SMALL_BYTES:
            await self.turns.take()
            await self.turns.run(translation.check_size(message, method))
        return parse_message(parse, message)

    async def _wait(self, receiving: Coroutine[Any, Any, Any], unauthenticated: UnauthenticatedCall | None) -> Any:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("gRPC runs each RPC in a task")
        timeout = self.timeout if unauthenticated is None else min(self.timeout, _UNAUTHENTICATED_SECONDS)
        self._waiting[task] = time.monotonic(), timeout
        try:
            return await receiving
        except asyncio.CancelledError:
            if task in self._late and not task.uncancel():
                raise StalledSenderError from None
            raise  # It was not the watch that cancelled the RPC, or not only: the caller has left.
        finally:
            del self._waiting[task]
            self._late.discard(task)

    async def run(self) -> None:
        """Ends requests that are late. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(min(self.timeout, _UNAUTHENTICATED_SECONDS) / _CHECKS)
            for task, (since, timeout) in self._waiting.items():
                if awake.seconds_since(since) > timeout and task not in self._late:
                    self._late.add(task)
                    task.cancel()


class RequestEnd:
    """Receives the end of a request, after its only message, while the request is being answered.

    Waiting for it first would delay each first token by a turn of the event loop. No task is needed for it: the
    coroutine is driven by hand, as in `generation.MessageWriter`.
    """

    def __init__(self, call: Call) -> None:
        self.is_only: bool | None = None
        """Whether the message was the only one; None while this is not known."""
        self._awaited: asyncio.Future[Any] | None = None
        """The future that `_reading` awaits."""
        self._arrival: asyncio.Future[None] | None = None
        if call.is_read:
            self.is_only = True
            return
        self._reading: Coroutine[Any, Any, Any] = call.read()
        self._step(None)

    async def wait(self) -> None:
        """Returns once `is_only` is known."""
        if self.is_only is None:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival

    def stop(self) -> None:
        """Stops waiting: gRPC keeps an RPC as long as something waits for it."""
        if self._awaited is not None:
            self._awaited.cancel()

    def _step(self, _: object) -> None:
        try:
            awaited = self._reading.send(None)
            awaited.add_done_callback(self._step)
            self._awaited = awaited
        except StopIteration as ended:
            self.is_only = ended.value is grpc.aio.EOF
        except (asyncio.CancelledError, grpc.aio.BaseError):
            self.is_only = True  # the RPC is over
        if self.is_only is not None and self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


def parse_message(parse: Parse, data: bytes) -> Any:
    """Parses a message.

    Raises:
        InvalidRequestError: The message does not match the contract.
        UnavailableError: There is not enough memory.
    """
    try:
        return parse(data)
    except DecodeError as error:
        if _lacked_memory(error, data):
            raise out_of_resources() from None
        raise _malformed("the message cannot be parsed") from None


def _lacked_memory(error: DecodeError, data: bytes) -> bool:
    """Whether protobuf lacked the memory for a message. Newer releases say so in the error, older ones do not."""
    if "alloc" in str(error):
        return True
    try:
        bytearray(_PARSED_SIZE * len(data))
    except MemoryError:
        return True
    return False


def _malformed(what: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("", what)], reason="MALFORMED_MESSAGE")
