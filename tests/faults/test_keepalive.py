"""Silent connections, and connections whose peer has vanished."""

from typing import Any

import grpc
import pytest

from doherty._core._channel import channel_options
from doherty.v1 import generation_service_pb2_grpc
from doherty.v1.latency_service_pb2 import ABORT_CAUSE_CANCELLED
from support.proxy import proxy
from support.server import start_server
from support.wire import connect, request

ENDLESS: dict[str, Any] = {"stopping": {"max_output_tokens": 8000, "ignore_eos": True}}


def test_a_caller_may_ping_a_silent_call_every_second() -> None:
    """Three other servers set an option that does not exist, so they close such a connection after about five pings."""
    pinging = [
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    silent = ("-o", "prefill_seconds=7", "--step-timeout", "300")
    with (
        start_server("--engine", "synthetic", *silent) as server,
        grpc.insecure_channel(server.target, options=pinging) as channel,
    ):
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        answer = stub.Generate(request(prompt="Wait.", stopping={"max_output_tokens": 1}), timeout=40)
    assert answer.summary.usage.output_tokens == 1


@pytest.mark.slow
def test_a_vanished_caller_is_detected() -> None:
    """The server sends a ping after half a minute of silence, and ends the connection ten seconds later."""
    slowly = ("-o", "tokens_per_second=1", "-o", "slots=1")
    with (
        start_server("--engine", "synthetic", *slowly) as server,
        connect(server.target) as caller,
        proxy(server.target) as wire,
        connect(wire.target) as gone,
    ):
        stream = gone.stub.StreamGenerate(request(prompt="a", **ENDLESS))
        next(stream)
        wire.stall()
        waiting = caller.stub.StreamGenerate(request(prompt="b", **ENDLESS), timeout=70)
        next(waiting)  # the request has its slot
        waiting.cancel()
        now = caller.wait_until(lambda now: not now.running)
        assert [(abort.cause, abort.count) for abort in now.aborts] == [(ABORT_CAUSE_CANCELLED, 2)]


@pytest.mark.slow
def test_a_vanished_server_is_detected() -> None:
    """On a channel with the options of the SDK."""
    with (
        start_server("--engine", "synthetic", "-o", "tokens_per_second=1") as server,
        proxy(server.target) as wire,
        grpc.insecure_channel(wire.target, options=channel_options(wire.target)) as channel,
    ):
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        stream = stub.StreamGenerate(request(prompt="a", **ENDLESS), timeout=60)
        next(stream)
        wire.stall()
        with pytest.raises(grpc.RpcError) as lost:
            list(stream)
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
