"""Callers that stop reading their answers."""

from typing import Any

import grpc
import pytest

from doherty.v1 import generation_service_pb2_grpc, latency_service_pb2
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, read_failure, request

STALLED = latency_service_pb2.ABORT_CAUSE_STALLED_READER
ENDLESS: dict[str, Any] = {"stopping": {"max_output_tokens": 8000, "ignore_eos": True}, "output": {"top_logprobs": 5}}
# A caller that takes a kilobyte, and then no more.
NARROW = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]


@pytest.fixture(scope="module")
def flooding() -> Any:
    with start_server(
        "--engine", "synthetic", "-o", "tokens_per_second=2000", "-o", "slots=2", "--stall-timeout", "0.5"
    ) as server:
        yield server


def test_a_caller_that_stops_reading_gives_its_slot_back(flooding: ServerProcess) -> None:
    with grpc.insecure_channel(flooding.target, options=NARROW) as channel, connect(flooding.target) as caller:
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        unread = stub.StreamGenerate(request(prompt="a", **ENDLESS), timeout=SECONDS)
        now = caller.wait_until(lambda now: any(abort.cause == STALLED for abort in now.aborts))
        assert (now.running, now.queued) == (0, 0)
        # Whoever reads on after all finds out what has become of the answer.
        with pytest.raises(grpc.RpcError) as caught:
            for _ in unread:
                pass
        failure = read_failure(caught.value)
        assert (failure.code, failure.reason) == (grpc.StatusCode.CANCELLED, "STALLED_READER")


def test_a_caller_that_reads_slowly_is_not_taken_for_one_that_stopped(flooding: ServerProcess) -> None:
    with grpc.insecure_channel(flooding.target, options=NARROW) as channel, connect(flooding.target) as caller:
        before = caller.wait_until(lambda now: now.running == 0)
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        slow = stub.StreamGenerate(request(prompt="a", **ENDLESS), timeout=SECONDS)
        last = None
        for number, message in enumerate(slow):
            last = message
            if number % 100 == 0:  # gives the server time to run ahead
                caller.generate(prompt="b", stopping={"max_output_tokens": 20})
        assert last is not None
        assert last.summary.usage.output_tokens == 8000
        after = caller.wait_until(lambda now: now.running == 0)
        assert list(after.aborts) == list(before.aborts)
