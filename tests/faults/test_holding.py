"""Callers that occupy resources and never free them."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty_service.metrics import _http
from support.http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GREETING,
    PREFACE,
    Frame,
    Kind,
    RawConnection,
    frame,
    header_block,
    raw_connection,
)
from support.metrics import LISTEN, scrape
from support.multiplex import opened, start
from support.security import add_key, bearer
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, failure_of, request

SYNTHETIC = ("--engine", "synthetic", "-o", "tokens_per_second=1000", "-o", "slots=8")
GENERATE = "/doherty.v1.GenerationService/Generate"
MULTIPLEX = "/doherty.v1.GenerationService/MultiplexGenerate"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 8000, "ignore_eos": True}}
SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}
NO_WINDOW = (4).to_bytes(2) + (0).to_bytes(4)
"""SETTINGS_INITIAL_WINDOW_SIZE 0: the server may send no data."""
HALF_MESSAGE = b"\0" + (1 << 20).to_bytes(4) + bytes(1000)
MAX_OF_A_STRANGER, MAX_OF_STRANGERS, MAX_ARRIVING = 64, 1024, 32


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Returns a file of keys, and the key that it contains."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    return file, add_key(file, "honest")


@pytest.fixture(scope="module")
def impatient(key: tuple[Path, str]) -> Iterator[ServerProcess]:
    """Runs a server with keys and timeouts of two seconds."""
    flags = ("--keys-file", str(key[0]), "--stall-timeout", "2", "--receive-timeout", "2", *LISTEN)
    with start_server(*SYNTHETIC, *flags) as server:
        yield server


def begin(method: str, stream: int, data: bytes, *, token: str = "", flags: int = END_STREAM) -> bytes:
    """Returns the frames of a call of which only `data` is sent."""
    block = header_block(method, *([("authorization", f"Bearer {token}")] if token else []))
    return frame(Kind.HEADERS, END_HEADERS, stream, block) + frame(Kind.DATA, flags, stream, data)


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4) + data


def until_ended(connection: RawConnection, streams: set[int]) -> list[Frame]:
    """Reads until the server has ended some calls, and returns how each of them ended."""
    ended_frames: list[Frame] = []
    for received in connection.frames():
        if received.stream in streams:
            ended_frames.append(received)
            if received.kind == Kind.RST_STREAM or (
                received.flags & END_STREAM and received.kind in (Kind.HEADERS, Kind.DATA)
            ):
                streams = streams - {received.stream}
        if not streams:
            return ended_frames
    raise AssertionError(f"the connection ended before {streams}")


def until_hung_up(server: ServerProcess, connection: RawConnection) -> None:
    """Waits until the server has ended the only call of a connection; others come meanwhile.

    grpc.aio keeps the last call that it has accepted until the next one comes.
    """
    reading = threading.Thread(target=until_ended, args=(connection, {1}), daemon=True)
    reading.start()
    with grpc.insecure_channel(server.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        while reading.is_alive():
            health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)


def test_half_a_message_on_a_multiplexed_call_ends_it(impatient: ServerProcess, key: tuple[Path, str]) -> None:
    with raw_connection(impatient.target) as connection:
        connection.send(GREETING, begin(MULTIPLEX, 1, HALF_MESSAGE, token=key[1], flags=0))
        ended_frames = until_ended(connection, {1})
    assert ended_frames
    assert impatient.wait_for("request", rpc="MultiplexGenerate", code="OK")


def test_a_multiplexed_call_lives_as_long_as_its_requests(impatient: ServerProcess, key: tuple[Path, str]) -> None:
    """It does not matter how long no message arrives. The call also continues for a while after the last request."""
    with (
        grpc.insecure_channel(impatient.target) as channel,
        opened(GenerationServiceStub(channel), metadata=bearer(key[1])) as rpc,
    ):
        rpc.send(start(1, **ENDLESS))
        begun = time.monotonic()
        rpc.read_until(lambda: time.monotonic() > begun + 3)
        rpc.send(start(2, **SHORT), cancels=[1])
        assert rpc.last(2).response.HasField("summary")
        rpc.last(1)
        assert rpc.read() is None


def test_an_unread_whole_answer_is_ended(impatient: ServerProcess, key: tuple[Path, str]) -> None:
    asked = message(request(request_id="unread", **SHORT).SerializeToString())
    with raw_connection(impatient.target) as connection:
        connection.send(PREFACE, frame(Kind.SETTINGS, payload=NO_WINDOW), frame(Kind.SETTINGS, ACK))
        connection.send(begin(GENERATE, 1, asked, token=key[1]))
        until_hung_up(impatient, connection)
    line = impatient.wait_for("request", request_id="unread")
    assert (line["code"], line["reason"]) == ("CANCELLED", "STALLED_READER")


def test_an_unread_status_is_ended(impatient: ServerProcess, key: tuple[Path, str]) -> None:
    asked = message(request(request_id="stalled", output={"top_logprobs": 20}, **ENDLESS).SerializeToString())
    with raw_connection(impatient.target) as connection:
        connection.send(PREFACE, frame(Kind.SETTINGS, payload=NO_WINDOW), frame(Kind.SETTINGS, ACK))
        connection.send(begin("/doherty.v1.GenerationService/StreamGenerate", 1, asked, token=key[1]))
        until_hung_up(impatient, connection)
    line = impatient.wait_for("request", request_id="stalled")
    assert (line["code"], line["reason"]) == ("CANCELLED", "STALLED_READER")


def test_a_half_sent_message_without_a_key_is_ended_to_make_room(impatient: ServerProcess) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(raw_connection(impatient.target)) for _ in range(2 * MAX_ARRIVING)]
        for connection in connections:
            connection.send(GREETING, begin(CHECK, 1, HALF_MESSAGE, flags=0))
        with grpc.insecure_channel(impatient.target) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            for _ in range(20):
                assert health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        for connection in connections:
            until_ended(connection, {1})


def test_health_watches_without_a_key_are_bounded(impatient: ServerProcess, key: tuple[Path, str]) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(raw_connection(impatient.target))
        first.send(GREETING, *(begin(WATCH, 2 * number + 1, message(b"")) for number in range(MAX_OF_A_STRANGER + 1)))
        last = 2 * MAX_OF_A_STRANGER + 1
        until_ended(first, {last})
        for _ in range(MAX_OF_STRANGERS // MAX_OF_A_STRANGER):
            another = stack.enter_context(raw_connection(impatient.target))
            another.send(GREETING, *(begin(WATCH, 2 * number + 1, message(b"")) for number in range(MAX_OF_A_STRANGER)))
        channel = stack.enter_context(grpc.insecure_channel(impatient.target))
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        watching: Any = health.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS, metadata=bearer(key[1]))
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        until_ended(first, {1})  # the oldest watch was ended to make room
    metrics = scrape(impatient)
    assert (metrics.value("doherty_refusals_total", reason="TOO_MANY_CALLS") or 0) >= 2


def test_a_connection_with_too_many_refused_calls_is_closed(impatient: ServerProcess, key: tuple[Path, str]) -> None:
    watches = [begin(WATCH, stream, message(b"")) for stream in range(3, 4 * MAX_OF_A_STRANGER + 7, 2)]
    with (
        raw_connection(impatient.target) as with_key,
        raw_connection(impatient.target) as watching_with_key,
        raw_connection(impatient.target) as without_key,
    ):
        # Without a message, this call ends after a while.
        with_key.send(GREETING, begin(GENERATE, 1, b"", token=key[1], flags=0), *watches)
        watching_with_key.send(GREETING, begin(WATCH, 1, message(b""), token=key[1]), *watches)
        without_key.send(GREETING, *watches)
        without_key.limit(SECONDS)
        for _ in without_key.frames():
            pass  # until the server closes the connection
        until_ended(with_key, {1})
        last = 4 * MAX_OF_A_STRANGER + 7
        for connection in (with_key, watching_with_key):
            connection.send(begin(GENERATE, last, message(b""), token=key[1]))
            until_ended(connection, {last})


def test_the_calls_of_a_caller_without_a_key_are_limited() -> None:
    with start_server(*SYNTHETIC) as server, grpc.insecure_channel(server.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        empty = health_pb2.HealthCheckRequest()
        watches: list[Any] = [health.Watch(empty, timeout=SECONDS) for _ in range(MAX_OF_A_STRANGER)]
        for watch in watches:
            next(watch)
        failure = failure_of(lambda: next(health.Watch(empty, timeout=SECONDS)))
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
        assert failure.retry_seconds is not None
        for watch in watches[1:]:
            watch.cancel()
        with raw_connection(server.target) as unread:
            unread.send(PREFACE, frame(Kind.SETTINGS, payload=NO_WINDOW), frame(Kind.SETTINGS, ACK))
            unread.send(*(begin(WATCH, 2 * number + 1, message(b"")) for number in range(10)))
            health.Check(empty, timeout=SECONDS)
            server.process.terminate()
            assert [reply.status for reply in watches[0]] == [health_pb2.HealthCheckResponse.NOT_SERVING]


def test_cancels_are_read_while_no_request_can_begin() -> None:
    flags = ("--max-concurrent-streams", "2")
    with start_server(*SYNTHETIC, *flags) as server, connect(server.target) as caller, opened(caller.stub) as rpc:
        rpc.send(start(1, **ENDLESS), start(2, **ENDLESS))
        rpc.first(2)
        rpc.send(start(3, **ENDLESS), start(4, **ENDLESS))  # these wait
        rpc.send(start(5, **SHORT), start(6, **SHORT))  # these are kept unparsed
        rpc.send(start(7, **SHORT), cancels=[6])
        rpc.send(cancels=[3, 7])
        assert rpc.failure(3).reason == "CANCELLED"
        rpc.send(cancels=[1, 2, 4])
        for number in (1, 2, 4, 6, 7):
            assert rpc.failure(number).reason == "CANCELLED"
        assert rpc.last(5).response.HasField("summary")
        rpc.rest()


def test_requests_that_cannot_be_kept_are_refused() -> None:
    large: dict[str, Any] = {**SHORT, "raw_text": "word " * 15_000}
    del large["prompt"]
    flags = ("--max-concurrent-streams", "2")
    with start_server(*SYNTHETIC, *flags) as server, connect(server.target) as caller, opened(caller.stub) as rpc:
        rpc.send(*(start(number, **ENDLESS) for number in range(1, 5)))
        rpc.first(2)
        for number in range(5, 105):
            rpc.send(start(number, **large))
        failure = rpc.failure(104)
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert failure.retry_seconds is not None
        rpc.send(cancels=range(1, 105))
        rpc.rest()


def test_a_half_sent_metrics_request_blocks_nobody(impatient: ServerProcess) -> None:
    host, _, port = str(impatient.wait_for("metrics")["address"]).rpartition(":")
    with ExitStack() as stack:
        halves = [stack.enter_context(socket.create_connection((host, int(port)), SECONDS)) for _ in range(40)]
        for half in halves:
            half.sendall(b"GET /metr")
        assert scrape(impatient).value("doherty_ready") == 1
        assert halves[0].recv(1) == b""  # the oldest requests were ended to make room


def test_a_metrics_request_has_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "_MAX_SECONDS", 0.1)
    port = _http.start_http("127.0.0.1", 0, lambda _, __: [])
    with socket.create_connection(("127.0.0.1", port), SECONDS) as half:
        half.sendall(b"GET / HTTP/1.0\r\n")
        assert half.recv(1) == b""
