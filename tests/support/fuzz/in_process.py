"""Sends the same inputs to a connection object without a socket, whose calls send back what they receive."""

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any, cast

import grpc
from hpack import Decoder

from doherty_service._call import Call
from doherty_service.http2 import Http2Server, Limits, Timeouts
from doherty_service.http2._connection import Connection
from doherty_service.rpc import LatencyInterceptor, Method
from support.conformance import error_of
from support.fuzz.frames import frame_input, header_input, message_input
from support.fuzz.http2 import GREETING, Findings, status_of
from support.http2 import END_STREAM, Frame, Kind, window_update

STREAMS = 10
_WINDOW = 1 << 30
_LIMITS = Limits(message_bytes=4 << 20, streams=1024, connections=10)
_FLUSHES = 2
"""The number of turns of the event loop after which everything that was ready has been sent."""
_MAX_TURNS = 200
"""The number of turns of the event loop within which everything must have ended."""


class _EchoInterceptor:
    """Replaces the path of a request: every method echoes its messages."""

    def method(self, _: object, __: str) -> Method:
        """Returns the same method for every path."""
        return Method(_echo, None)


async def _echo(call: Call) -> None:
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            if not call.put(message):
                await call.write(message)
    except grpc.aio.InternalError:  # the call is over
        raise asyncio.CancelledError from None


class _Socket:
    """A socket that only accepts options."""

    def setsockopt(self, *_: int) -> None:
        """Does nothing."""


class MemoryTransport(asyncio.Transport):
    """Keeps the data that is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "socket": _Socket()})
        self.written = bytearray()
        self.is_closed = False
        self.is_paused = False

    def write(self, data: Any) -> None:
        if not self.is_closed:
            self.written += data

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


class InProcess:
    """Sends inputs to connections of a server without sockets."""

    def __init__(self) -> None:
        """Replaces the exception handler of the running event loop, which is required."""
        interceptor = cast("LatencyInterceptor", _EchoInterceptor())
        self._server = Http2Server(interceptor, _LIMITS, Timeouts(idle=1e6, age=0))
        self._faults: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self._faults.append(repr(context.get("exception") or context["message"]))
        )

    async def send_streams(self, seed: str) -> Findings:
        """Sends inputs on streams of one connection. The server must end every stream."""
        random, findings = Random(seed), Findings(STREAMS)  # noqa: S311 - to be repeated
        numbers = range(1, 2 * STREAMS, 2)
        sent = b"".join(random.choice((message_input, header_input))(random, number) for number in numbers)
        waiting = set(numbers)
        for stream, outcome in await self._talk(random, sent, findings, seed):
            if not stream:
                findings.outcomes["ended with the connection"] += len(waiting)
                waiting.clear()
            if not stream or stream in waiting:
                findings.judge(outcome, f"{seed} {sent!r}")
                waiting.discard(stream)
        if waiting:
            findings.judge("UNANSWERED", f"{waiting} of {seed}: {sent!r}")
        return findings

    async def send_frames(self, seed: str) -> Findings:
        """Sends a single input: damaged frames."""
        random, findings = Random(seed), Findings(1)  # noqa: S311 - to be repeated
        sent = frame_input(random)
        for _, outcome in [*await self._talk(random, sent, findings, seed), (0, "closed")]:
            findings.judge(outcome, f"{seed} {sent!r}")
        return findings

    async def _talk(self, random: Random, sent: bytes, findings: Findings, seed: str) -> list[tuple[int, str]]:
        """Passes bytes to a connection, in parts of random sizes, and ends it.

        Returns how each stream ended, and how the connection ended as stream 0, if the server ended it.
        """
        data = GREETING + window_update(0, _WINDOW) + sent
        transport = MemoryTransport()
        connection = Connection(self._server)
        connection.connection_made(transport)
        connection.is_accepted = random.random() < 0.5

        def is_reading() -> bool:
            return not transport.is_paused or connection.closed is not None

        size = random.choice((len(data), len(data), 1 << 14, 100, 7))
        at = 0
        while at < len(data):
            buffer = connection.get_buffer(-1)
            part = data[at : at + min(size, len(buffer))]
            buffer[: len(part)] = part
            connection.buffer_updated(len(part))
            at += len(part)
            if random.random() < 0.1:
                await asyncio.sleep(0)
            # If a turn took long, the connection continues to read in a later one.
            if not is_reading() and not await self._settle(is_reading):
                findings.judge("HANG", f"the connection reads nothing more of {seed}")
                break
        # Damaged frames may leave streams half-open, so streams that are left are no failure.
        await self._settle(lambda: not connection.streams)
        connection.connection_lost(None)
        if not await self._settle(lambda: len(asyncio.all_tasks()) == 1):
            findings.judge("HANG", f"{asyncio.all_tasks()!r} of {seed}")
        for fault in self._faults:
            findings.judge("CRASH", f"{fault} of {seed}")
        self._faults.clear()
        return _ends(bytes(transport.written))

    @staticmethod
    async def _settle(is_over: Any) -> bool:
        for turn in range(_MAX_TURNS):
            if turn >= _FLUSHES and is_over():
                return True
            await asyncio.sleep(0)
        return False


def _ends(written: bytes) -> list[tuple[int, str]]:
    decoder, fields, ends = Decoder(), dict[int, dict[str, str]](), list[tuple[int, str]]()
    for received in _frames(written):
        if received.kind == Kind.HEADERS:
            block = {str(name): str(value) for name, value in decoder.decode(received.payload)}
            fields.setdefault(received.stream, {}).update(block)
        if received.kind in {Kind.GOAWAY, Kind.RST_STREAM}:
            ends.append((received.stream, f"{Kind(received.kind).name} {error_of(received).name}"))
        elif received.flags & END_STREAM and received.kind in {Kind.HEADERS, Kind.DATA}:
            ends.append((received.stream, status_of(fields[received.stream])))
    return ends


def _frames(data: bytes) -> Iterator[Frame]:
    at = 0
    while at < len(data):
        end = at + 9 + int.from_bytes(data[at : at + 3])
        yield Frame(data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9]), data[at + 9 : end])
        at = end
