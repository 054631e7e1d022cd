"""The interceptor: records, latency and errors."""

import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty.v1 import latency_service_pb2
from doherty.v1.generation_service_pb2 import CountTokensRequest
from support.endings import begin
from support.multiplex import Rpc, start
from support.proxy import proxy
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, failure_of, read_failure, request

GENERATE = "/doherty.v1.GenerationService/Generate"
STREAM = "/doherty.v1.GenerationService/StreamGenerate"
SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 20, "ignore_eos": True}}


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7f"])
@pytest.mark.parametrize(
    "method",
    [GENERATE, STREAM, "/doherty.v1.GenerationService/CountTokens", "/doherty.v1.LatencyService/GetLatency"],
)
def test_a_message_that_cannot_be_parsed_is_invalid(synthetic_server: ServerProcess, method: str, data: bytes) -> None:
    with grpc.insecure_channel(synthetic_server.target) as channel:
        call: Any = (channel.unary_stream if method == STREAM else channel.unary_unary)(method)
        with pytest.raises(grpc.RpcError) as refused:
            list(call(data, timeout=SECONDS)) if method == STREAM else call(data, timeout=SECONDS)
    failure = read_failure(refused.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


@pytest.mark.parametrize(
    "method",
    [
        GENERATE,
        STREAM,
        "/doherty.v1.GenerationService/CountTokens",
        "/doherty.v1.GenerationService/GetModel",
        "/doherty.v1.LatencyService/GetLatency",
    ],
)
@pytest.mark.parametrize("number", [0, 2, 3])
def test_a_request_is_one_message(synthetic_server: ServerProcess, method: str, number: int) -> None:
    with grpc.insecure_channel(synthetic_server.target) as channel:
        call: Any = channel.stream_stream(method)
        # The first message is valid for its method; the error is that another one follows.
        message = request(**SHORT).SerializeToString() if "Generate" in method.rpartition("/")[2] else b""
        if method.endswith("CountTokens"):
            message = CountTokensRequest(prompt="a").SerializeToString()
        failure = failure_of(lambda: list(call(iter([message] * number), timeout=SECONDS)))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


def test_a_message_over_the_bound_is_refused(synthetic_server: ServerProcess) -> None:
    with connect(synthetic_server.target) as caller, pytest.raises(grpc.RpcError) as refused:
        caller.generate(prompt="x" * (caller.model.limits.max_message_bytes + 1))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_health_service_keeps_its_own_status(synthetic_server: ServerProcess) -> None:
    with grpc.insecure_channel(synthetic_server.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_every_request_is_one_line_of_the_log() -> None:
    with start_server("--engine", "synthetic") as server, connect(server.target) as caller:
        caller.stream(**SHORT, request_id="a label")
        line = server.wait_for("request", request_id="a label")
        assert (line["rpc"], line["code"], line["finish_reason"]) == ("StreamGenerate", "OK", "length")
        assert line["output_tokens"] == 20
        for name in ("queue", "preprocess", "time_to_first_token", "total", "time_per_output_token", "inter_token_p50"):
            assert isinstance(line[f"{name}_ms"], float)
        assert str(line["peer"]).startswith("ipv4:127.0.0.1:")
        deadline = float(str(line["deadline_ms"])) / 1000
        assert deadline == pytest.approx(SECONDS, rel=0.02)  # gRPC rounds it
        assert not {"reason", "abort_cause", "key", "trace_id", "cached_tokens"} & line.keys()  # absent without a value
        failure = caller.failure(prompt="a", raw_text="b")
        refused = server.wait_for("request", request_id=failure.request_id)
        assert (refused["code"], refused["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELD")


def test_the_measured_total_includes_the_whole_answer() -> None:
    with start_server("--engine", "synthetic", "-o", "tokens_per_second=100") as server:
        with connect(server.target) as caller:
            begun = time.monotonic()
            answer = caller.generate(**SHORT, request_id="timed")
            mine = time.monotonic() - begun
        line = server.wait_for("request", request_id="timed")
    total = answer.summary.timings.total.ToNanoseconds() / 1e9
    duration = line["duration_ms"]
    assert isinstance(duration, float)
    assert 0.19 <= total <= mine  # 20 tokens at 100 per second
    assert total <= duration / 1000  # which ends after the reply is sent, perhaps later than for the caller


@pytest.mark.parametrize("method", [GENERATE, STREAM])
@pytest.mark.parametrize(
    ("cause", "code"),
    [("ABORT_CAUSE_CANCELLED", "CANCELLED"), ("ABORT_CAUSE_DEADLINE", "DEADLINE_EXCEEDED")],
)
def test_a_call_that_ends_early_is_counted_by_cause_and_frees_its_slot(method: str, cause: str, code: str) -> None:
    with (
        start_server("--engine", "synthetic", "-o", "tokens_per_second=20") as server,
        connect(server.target) as caller,
    ):
        long_request = request(prompt="a", stopping={"max_output_tokens": 1000, "ignore_eos": True}, request_id="early")
        timeout = 2 if code == "DEADLINE_EXCEEDED" else SECONDS
        start = caller.stub.Generate.future if method == GENERATE else caller.stub.StreamGenerate
        call: Any = start(long_request, timeout=timeout)
        caller.wait_until(lambda now: now.running == 1)
        if code == "CANCELLED":
            call.cancel()
        line = server.wait_for("request", request_id="early")
        assert (line["code"], line["abort_cause"]) == (code, cause.removeprefix("ABORT_CAUSE_").lower())
        assert str(line["peer"]).startswith("ipv4:127.0.0.1:")
        now = caller.wait_until(lambda now: now.running == 0)
        counted = {latency_service_pb2.AbortCause.Name(abort.cause): abort.count for abort in now.aborts}
        assert counted == {cause: 1}


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate", "MultiplexGenerate"])
def test_the_log_has_the_address_of_a_caller_whose_connection_is_cut(method: str) -> None:
    with (
        start_server("--engine", "synthetic", "-o", "tokens_per_second=20") as server,
        connect(server.target) as caller,
        proxy(server.target) as wire,
        connect(wire.target) as leaving,
    ):
        long_request: dict[str, Any] = {
            "prompt": "a",
            "stopping": {"max_output_tokens": 1000, "ignore_eos": True},
            "request_id": "gone",
        }
        if method == "MultiplexGenerate":
            call: Any = Rpc(leaving.stub)
            call.send(start(1, **long_request))
        else:
            call = begin(leaving, method, request(**long_request))
        caller.wait_until(lambda now: now.running == 1)
        wire.reset()
        line = server.wait_for("request", request_id="gone")
        assert (line["rpc"], line["code"]) == (method, "CANCELLED")
        assert str(line["peer"]).startswith("ipv4:127.0.0.1:")
        if method == "MultiplexGenerate":
            call.half_close()


def test_an_engine_failure_is_unavailable_without_internal_text() -> None:
    with start_server("--engine", "synthetic", "-o", "fail_after_tokens=5") as server:
        with connect(server.target) as caller:
            failure = caller.failure(**SHORT, request_id="unlucky")
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED")
        assert failure.retry_seconds is not None
        logged = server.wait_for("error", request_id="unlucky")
        assert str(logged["error"]) not in failure.message
        line = server.wait_for("request", request_id="unlucky")
        assert (line["reason"], line["abort_cause"]) == ("ENGINE_FAILED", "engine")


def test_the_text_before_a_failure_is_delivered() -> None:
    failing = ("--engine", "synthetic", "-o", "fail_after_tokens=5", "-o", "tokens_per_second=0")
    tokens: list[int] = []
    with start_server(*failing) as server, connect(server.target) as caller:
        stream = caller.stub.StreamGenerate(request(**SHORT), timeout=SECONDS)
        with pytest.raises(grpc.RpcError) as failed:
            tokens.extend(part.delta.token_count for part in stream)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert sum(tokens) == 5
