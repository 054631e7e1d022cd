"""Callers that stop reading their answers."""

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from doherty.v1 import generation_service_pb2_grpc, latency_service_pb2
from doherty.v1.generation_service_pb2 import MultiplexGenerateRequest
from support.multiplex import start
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, failure_of, read_failure, request

STALLED = latency_service_pb2.ABORT_CAUSE_STALLED_READER
ENDLESS: dict[str, Any] = {"stopping": {"max_output_tokens": 8000, "ignore_eos": True}, "output": {"top_logprobs": 5}}
# A caller that accepts a kilobyte, and then no more.
NARROW = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]


@pytest.fixture(scope="module")
def flooding() -> Iterator[ServerProcess]:
    with start_server(
        "--engine", "synthetic", "-o", "tokens_per_second=2000", "-o", "slots=2", "--stall-timeout", "2"
    ) as server:
        yield server


def stalled(now: latency_service_pb2.GetLatencyResponse) -> int:
    """Returns how many callers have stopped reading."""
    return sum(abort.count for abort in now.aborts if abort.cause == STALLED)


@pytest.mark.parametrize("alternatives", [5, 20])
def test_a_slot_is_freed_if_its_caller_stops_reading(flooding: ServerProcess, alternatives: int) -> None:
    """The size of the blocked message does not matter."""
    with grpc.insecure_channel(flooding.target, options=NARROW) as channel, connect(flooding.target) as caller:
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        before = caller.wait_until(lambda now: now.running == 0)
        asked = {**ENDLESS, "output": {"top_logprobs": alternatives}}
        unread = stub.StreamGenerate(request(prompt="a", **asked), timeout=SECONDS)
        now = caller.wait_until(lambda now: stalled(now) > stalled(before) and now.running == 0)
        assert (now.running, now.queued) == (0, 0)
        # A caller that continues to read learns how the answer ended.
        with pytest.raises(grpc.RpcError) as caught:
            for _ in unread:
                pass
        failure = read_failure(caught.value)
        assert (failure.code, failure.reason) == (grpc.StatusCode.CANCELLED, "STALLED_READER")


@pytest.fixture(scope="module")
def gushing() -> Iterator[ServerProcess]:
    """Runs a server whose first message is as large as many others together."""
    flags = ("-o", "tokens_per_second=2000", "-o", "tokens_per_step=700", "--stall-timeout", "0.5")
    with start_server("--engine", "synthetic", *flags) as server:
        yield server


@pytest.mark.parametrize("multiplexed", [False, True], ids=["stream", "multiplexed"])
def test_a_caller_that_reads_too_late_gets_its_status(gushing: ServerProcess, *, multiplexed: bool) -> None:
    asked = {**ENDLESS, "prompt": "a", "output": {"top_logprobs": 20}}
    with grpc.insecure_channel(gushing.target, options=NARROW) as channel, connect(gushing.target) as caller:
        before = caller.wait_until(lambda now: now.running == 0)
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        sent = iter([MultiplexGenerateRequest(starts=[start(1, **asked)])])
        unread: Any = (
            stub.MultiplexGenerate(sent, timeout=SECONDS)
            if multiplexed
            else stub.StreamGenerate(request(**asked), timeout=SECONDS)
        )
        caller.wait_until(lambda now: stalled(now) > stalled(before))
        assert next(unread).ByteSize() > 200_000
        failure = failure_of(lambda: list(unread))
        assert (failure.code, failure.reason) == (grpc.StatusCode.CANCELLED, "STALLED_READER")


def test_a_slow_reader_is_not_ended() -> None:
    stall_timeout = 4
    flags = ("-o", "tokens_per_second=1000", "-o", "slots=2", "--stall-timeout", str(stall_timeout))
    with (
        start_server("--engine", "synthetic", *flags) as server,
        grpc.insecure_channel(server.target, options=NARROW) as channel,
        connect(server.target) as caller,
    ):
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        begun = time.monotonic()
        read = pauses = 0
        last = None
        for last in stub.StreamGenerate(request(prompt="a", **ENDLESS), timeout=2 * SECONDS):
            read += last.delta.token_count
            if read >= 200 * pauses:  # a pause of 0.3 s, in which the server runs ahead
                caller.generate(prompt="b", stopping={"max_output_tokens": 300, "ignore_eos": True})
                pauses += 1
        assert time.monotonic() - begun > stall_timeout
        assert last is not None
        assert last.summary.usage.output_tokens == 8000
        after = caller.wait_until(lambda now: now.running == 0)
        assert not after.aborts
