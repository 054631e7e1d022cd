"""Callers of MultiplexGenerate that leave, stop reading, or send very many requests."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest

from doherty.v1 import latency_service_pb2
from doherty.v1.generation_service_pb2 import MultiplexGenerateRequest
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from support.http2 import END_HEADERS, GREETING, LONG_HEADER_BLOCK, Kind, frame, raw_connection
from support.multiplex import Rpc, opened, start
from support.proxy import Proxy, proxy
from support.raw_rpc import MULTIPLEX, framed, headers
from support.server import ServerProcess, start_server
from support.wire import Caller, connect, failure_of

ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 8000, "ignore_eos": True}}
WORDY: dict[str, Any] = {**ENDLESS, "output": {"top_logprobs": 5}}
SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}
NARROW = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
CANCELLED, DEADLINE, STALLED = (
    latency_service_pb2.ABORT_CAUSE_CANCELLED,
    latency_service_pb2.ABORT_CAUSE_DEADLINE,
    latency_service_pb2.ABORT_CAUSE_STALLED_READER,
)


@contextmanager
def quiet_server(*flags: str) -> Iterator[tuple[ServerProcess, Caller]]:
    """Runs a server that must exit cleanly, with no error and no stack trace in its log."""
    with start_server("--engine", "synthetic", *flags) as server, connect(server.target) as caller:
        yield server, caller
        assert server.stop() == 0
        lines = [*server.log, *server.read()]
        assert [line for line in lines if line.get("level") == "error" or line["event"] == "text"] == []


def aborts(caller: Caller) -> dict[int, int]:
    """Waits until no request runs or waits, and returns the number of aborted answers by cause."""
    return counts(caller.wait_until(lambda now: not now.running and not now.queued))


def counts(now: latency_service_pb2.GetLatencyResponse) -> dict[int, int]:
    """Returns the number of aborted answers by cause. An answer is counted when its last part is written."""
    return {abort.cause: abort.count for abort in now.aborts}


@pytest.mark.parametrize("leaves", ["cancels", "resets", "half-closes and cancels", "lets the deadline pass"])
def test_all_slots_are_free_after_a_caller_left(leaves: str) -> None:
    with (
        quiet_server("-o", "slots=4") as (server, caller),
        proxy(server.target) as wire,
        grpc.insecure_channel(wire.target) as channel,
        opened(GenerationServiceStub(channel), timeout=4.0 if "deadline" in leaves else 60) as rpc,
    ):
        count = 4 if "deadline" in leaves else 8  # requests that would wait in vain are refused
        numbers = range(1, count + 1)
        rpc.send(*(start(number, whole=number % 2 == 0, request_id=str(number), **ENDLESS) for number in numbers))
        caller.wait_until(lambda now: (now.running, now.queued) == (4, count - 4))
        leave(rpc, wire, leaves)
        expected = {DEADLINE if "deadline" in leaves else CANCELLED: count}
        caller.wait_until(lambda now: not now.running and counts(now) == expected)
        for number in numbers:
            line = server.wait_for("request", request_id=str(number))
            assert line["code"] == ("DEADLINE_EXCEEDED" if "deadline" in leaves else "CANCELLED")
        assert caller.generate(**SHORT).text


def leave(rpc: Rpc, wire: Proxy, how: str) -> None:
    """Leaves in the middle of answers."""
    if "half" in how:
        rpc.half_close()
        rpc.first(1)
    if "cancels" in how:
        rpc.call.cancel()
    elif how == "resets":
        wire.reset()
    with pytest.raises(grpc.RpcError):
        rpc.read_until(lambda: False)


def test_a_request_may_begin_while_its_caller_leaves() -> None:
    with quiet_server("-o", "slots=4") as (_, caller):
        for _ in range(50):
            with opened(caller.stub) as rpc:
                rpc.send(*(start(number, **ENDLESS) for number in range(1, 9)), cancels=[1, 5])
        aborts(caller)
        assert caller.generate(**SHORT).text


def test_a_caller_that_stops_reading_gets_an_error_and_all_slots_are_freed() -> None:
    flags = ("-o", "tokens_per_second=2000", "-o", "slots=4", "--stall-timeout", "0.5")
    with (
        quiet_server(*flags) as (server, caller),
        grpc.insecure_channel(server.target, options=NARROW) as channel,
        opened(GenerationServiceStub(channel)) as rpc,
    ):
        rpc.send(
            *(start(number, request_id=str(number), **WORDY) for number in range(1, 4)),
            *(start(number, request_id=str(number), **WORDY) for number in range(4, 7)),
        )
        caller.wait_until(lambda now: len(now.aborts) > 0)
        assert aborts(caller)[STALLED] == 4  # requests that wait for a slot had no unread output
        failure = failure_of(lambda: rpc.read_until(lambda: False))
        assert (failure.code, failure.reason) == (grpc.StatusCode.CANCELLED, "STALLED_READER")
        assert server.wait_for("request", request_id="1")["reason"] == "STALLED_READER"
        assert caller.generate(**SHORT).text


def test_answers_may_end_while_a_write_is_stuck() -> None:
    """An answer in a message that is never read has ended for the server; the RPC ends because it was not read."""
    flags = ("-o", "tokens_per_second=0", "-o", "slots=64", "--stall-timeout", "0.5")
    long: dict[str, Any] = {
        "prompt": "a",
        "stopping": {"max_output_tokens": 400, "ignore_eos": True},
        "output": {"top_logprobs": 5},
    }
    with (
        quiet_server(*flags) as (server, caller),
        grpc.insecure_channel(server.target, options=NARROW) as channel,
        opened(GenerationServiceStub(channel)) as rpc,
    ):
        rpc.send(*(start(number, whole=True, request_id=str(number), **long) for number in range(1, 65)))
        lines = [server.wait_for("request", request_id=str(number)) for number in range(1, 65)]
        ends = Counter((line["code"], line.get("reason")) for line in lines)
        assert ends["CANCELLED", "STALLED_READER"] >= 60
        assert set(ends) <= {
            ("CANCELLED", "STALLED_READER"),
            ("OK", None),
        }  # the window of the caller may contain the first parts
        aborts(caller)


def test_ten_thousand_requests_in_a_message_do_not_delay_others() -> None:
    """Other requests wait only for a small part of the time that these requests take."""
    share = 1.0
    with quiet_server("-o", "tokens_per_second=0") as (_, caller):
        for _ in range(5):  # on a busy machine, one wait may be long for other reasons
            with opened(caller.stub, timeout=120) as rpc:
                share = _longest_wait_beside_ten_thousand(rpc, caller)
            if share < 1 / 4:
                break
    assert share < 1 / 4


def _longest_wait_beside_ten_thousand(rpc: Rpc, caller: Caller) -> float:
    """Makes the requests, and returns the longest wait of another caller as a share of the time that they take."""
    begun = [start(number, **SHORT) for number in range(1, 10_001)]
    sent_at = time.monotonic()
    rpc.send(*begun)
    rpc.half_close()
    waits: list[float] = []
    while rpc.read() is not None:
        asked_at = time.monotonic()
        caller.latency.GetLatency(latency_service_pb2.GetLatencyRequest(), timeout=60)
        waits.append(time.monotonic() - asked_at)
    assert len(rpc.ended) == 10_000
    return max(waits) / (time.monotonic() - sent_at)


def test_requests_have_the_status_with_which_the_transport_ends_their_rpc() -> None:
    message = MultiplexGenerateRequest(starts=[start(1, **ENDLESS, request_id="flooded")]).SerializeToString()
    with quiet_server("--transport", "http2") as (server, caller), raw_connection(server.target) as connection:
        connection.send(
            GREETING,
            frame(Kind.HEADERS, END_HEADERS, 1, headers(MULTIPLEX)),
            frame(Kind.DATA, 0, 1, framed(message)),
        )
        caller.wait_until(lambda now: now.running == 1)
        with suppress(ConnectionError):  # the server may close the connection before it has read everything
            connection.send(LONG_HEADER_BLOCK)
        assert server.wait_for("request", request_id="flooded")["code"] == "RESOURCE_EXHAUSTED"
