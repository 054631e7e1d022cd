"""Connections on which something is started and never finished."""

import asyncio
import itertools
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from doherty_service.rpc import LatencyInterceptor, ReceiveWatch, Reporter
from doherty_service.settings import Settings
from doherty_service.telemetry import LatencyRecorder, Metadata, RequestRecord
from doherty_service.transport import grpc_options
from support.certificates import Authority
from support.http2 import END_HEADERS, GREETING, PREFACE, Kind, RawConnection, frame, header_block, raw_connection
from support.server import ServerProcess, start_server
from support.wire import Caller, connect

GENERATE = "/doherty.v1.GenerationService/Generate"
SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 3}}
SYNTHETIC = ("--engine", "synthetic")
HEADERS = header_block(GENERATE)
HALF_HEADERS = frame(Kind.HEADERS, 0, 1, HEADERS[:20])
HALF_FRAME = frame(Kind.HEADERS, END_HEADERS, 1, HEADERS)[:30]
HALF_MESSAGE = frame(Kind.DATA, 0, 1, b"\0\0\0\1\0abc")
"""The first bytes of 256."""

NUMBER = 100
"""The number of stalled connections."""


def descriptors(server: ServerProcess) -> int:
    """Returns the number of files and connections that the process has open."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def wait_for_descriptors(caller: Caller, server: ServerProcess, most: int) -> None:
    """Waits until the descriptors of closed connections are free again."""
    caller.wait_until(lambda _: descriptors(server) <= most)


@pytest.fixture
def stalling() -> Iterator[ExitStack]:
    """Keeps stalled connections open until the end of the test."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(PREFACE[:10], id="half a preface"),
        pytest.param(GREETING, id="no call"),
        pytest.param(GREETING + HALF_HEADERS, id="half of the headers"),
        pytest.param(GREETING + HALF_FRAME, id="half a frame"),
        pytest.param(GREETING + frame(Kind.HEADERS, END_HEADERS, 1, HEADERS), id="no message"),
        pytest.param(GREETING + frame(Kind.HEADERS, END_HEADERS, 1, HEADERS) + HALF_MESSAGE, id="half a message"),
    ],
)
def test_others_are_served_and_all_resources_are_freed(sent: bytes, stalling: ExitStack) -> None:
    with start_server(*SYNTHETIC, "-o", "slots=1") as server, connect(server.target) as caller:
        before = descriptors(server)
        for _ in range(NUMBER):
            stalling.enter_context(raw_connection(server.target)).send(sent)
        caller.wait_until(lambda _: descriptors(server) >= before + NUMBER)
        for _ in range(20):
            caller.generate(**SHORT)
        assert caller.wait_until(lambda _: True).running == 0  # a stalled caller has no slot
        stalling.close()
        wait_for_descriptors(caller, server, before)


def client_hello() -> bytes:
    """Returns the first message of a TLS handshake."""
    context, outgoing = ssl.create_default_context(), ssl.MemoryBIO()
    context.set_alpn_protocols(["h2"])
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def trickle(connection: RawConnection, sent: bytes) -> float:
    """Sends one byte at a time until the server ends the connection. Returns the duration in seconds."""
    connection.limit(0.1)
    begun = time.monotonic()
    with suppress(ConnectionError):
        for byte in itertools.chain(sent, itertools.repeat(0)):
            with suppress(TimeoutError):
                connection.send(bytes([byte]))
                connection.until_closed()
                break
    return time.monotonic() - begun


def test_an_incomplete_handshake_is_ended(tmp_path: Path, stalling: ExitStack) -> None:
    authority = Authority(tmp_path)
    authority.renew("localhost")
    hello = client_hello()
    with start_server(*SYNTHETIC) as plain, start_server(*SYNTHETIC, *authority.flags) as secure:
        stalled = [
            (plain, b""),
            (plain, PREFACE[:10]),
            (plain, PREFACE),
            (plain, PREFACE + frame(Kind.SETTINGS)),  # without acknowledging the server's settings
            (secure, b""),
            (secure, hello[: len(hello) // 2]),
            (secure, hello),
        ]
        connections = [stalling.enter_context(raw_connection(server.target)) for server, _ in stalled]
        trickling = stalling.enter_context(raw_connection(secure.target))
        for connection, (_, sent) in zip(connections, stalled, strict=True):
            connection.send(sent)
        with ThreadPoolExecutor(len(connections) + 1) as pool:
            trickled = pool.submit(trickle, trickling, hello)
            seconds = list(pool.map(RawConnection.until_closed, connections))
            seconds.append(trickled.result())
    assert all(4 < duration < 30 for duration in seconds), seconds


def test_others_are_served_during_incomplete_handshakes(tmp_path: Path, stalling: ExitStack) -> None:
    authority = Authority(tmp_path)
    authority.renew("localhost")
    hello = client_hello()
    with start_server(*SYNTHETIC, *authority.flags) as server, connect(server.target, authority.roots) as caller:
        before = descriptors(server)
        for number in range(NUMBER):
            stalling.enter_context(raw_connection(server.target)).send(hello[: None if number % 2 else -1])
        caller.wait_until(lambda _: descriptors(server) >= before + NUMBER)
        for _ in range(5):
            with connect(server.target, authority.roots) as newcomer:
                newcomer.generate(**SHORT)
        stalling.close()
        wait_for_descriptors(caller, server, before)


def test_an_idle_connection_is_closed_and_reopened() -> None:
    with start_server(*SYNTHETIC, "--idle-timeout", "1") as server, connect(server.target) as caller:
        with raw_connection(server.target) as idle:
            idle.send(GREETING)
            assert [received.kind for received in idle.frames()][-1] == Kind.GOAWAY
        caller.generate(**SHORT)


def test_the_server_stops_waiting_for_a_half_sent_message() -> None:
    with start_server(*SYNTHETIC, "--receive-timeout", "0.5") as server, raw_connection(server.target) as connection:
        connection.send(GREETING, frame(Kind.HEADERS, END_HEADERS, 1, HEADERS), HALF_MESSAGE)
        last = next(received for received in connection.frames() if received.kind == Kind.RST_STREAM)
        assert last.stream == 1
        line = server.wait_for("request", code="CANCELLED")
        assert line["rpc"] == "Generate"


def test_connections_above_the_limit_are_refused_and_others_continue(stalling: ExitStack) -> None:
    with start_server(*SYNTHETIC, "--max-connections", "8") as server, connect(server.target) as caller:
        many = [stalling.enter_context(raw_connection(server.target)) for _ in range(20)]
        for connection in many:
            with suppress(ConnectionError):
                connection.send(GREETING)
        caller.wait_until(lambda _: sum(connection.is_closed() for connection in many) >= 20 - 7)
        caller.generate(**SHORT)
        stalling.close()
        with connect(server.target) as other:
            other.generate(**SHORT)


class Begins(Reporter):
    """Counts the RPCs that start."""

    def __init__(self) -> None:
        super().__init__(LatencyRecorder(60), lambda _: None)
        self.begun = asyncio.Semaphore(0)

    def begin(self, record: RequestRecord, metadata: Metadata) -> None:
        self.begun.release()
        super().begin(record, metadata)


async def test_tasks_are_freed() -> None:
    """Uses our interceptors and options for one method.

    The server's keepalive (a ping after 30 s, and 10 s for its reply) is shortened to five seconds each.
    """
    settings, begins = Settings(receive_timeout=3), Begins()
    receive_watch = ReceiveWatch(settings.receive_timeout)
    watching = asyncio.create_task(receive_watch.run())
    short = {"grpc.keepalive_time_ms": 5_000, "grpc.http2.ping_timeout_ms": 5_000}
    assert short.keys() <= dict(grpc_options(settings)).keys()
    server = grpc.aio.server(
        interceptors=[LatencyInterceptor(begins, receive_watch)],
        options=list((dict(grpc_options(settings)) | short).items()),
    )
    handlers: Any = {"Generate": grpc.unary_unary_rpc_method_handler(lambda request, _: request)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("doherty.v1.GenerationService", handlers),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        with ExitStack() as stack:
            before = asyncio.all_tasks()
            connections = [stack.enter_context(raw_connection(target)) for _ in range(20)]
            for connection in connections[:10]:
                connection.send(GREETING, frame(Kind.HEADERS, END_HEADERS, 1, HEADERS), HALF_MESSAGE)
            for connection in connections[10:]:
                connection.send(GREETING, HALF_HEADERS)
            for _ in range(10):
                await begins.begun.acquire()
            working = {task for task in asyncio.all_tasks() - before if "_request_call" not in repr(task)}
            assert len(working) >= 10  # the omitted object waits for the next call
            await asyncio.wait(working)
            await asyncio.gather(*(asyncio.to_thread(opened.until_closed) for opened in connections))
    finally:
        watching.cancel()
        await server.stop(None)
