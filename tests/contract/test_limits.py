"""Requests that are too large, too many or too late."""

import json
from typing import Any

import grpc
import pytest

from doherty.v1 import answer_pb2, request_pb2
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Caller, connect, failure_of, request

HELD: dict[str, Any] = {"prompt": "Wait.", "stopping": {"max_output_tokens": 8000, "ignore_eos": True}}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"messages": [{"content": "no role"}] * 100}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"messages": [{"role": "ROLE_USER"}] * 4097}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"prompt": "a", "model": "ü" * 10_000}, grpc.StatusCode.NOT_FOUND),
        ({"prompt": "a", "stopping": {"stop_texts": ["x" * 2000] * 40}}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"prompt": "a", "constraint": {"json_schema": "{" + "ü" * 20_000}}, grpc.StatusCode.INVALID_ARGUMENT),
        (
            {"prompt": "a", "constraint": {"json_schema": json.dumps({"type": "x" * 20_000})}},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
)
def test_every_status_fits_into_metadata(caller: Caller, fields: dict[str, Any], code: grpc.StatusCode) -> None:
    """gRPC drops trailing metadata above 8 kB, including the status."""
    failure = caller.failure(**fields)
    assert failure.code is code
    assert failure.message


def test_a_conversation_with_millions_of_messages_delays_no_other_call(synthetic_server: ServerProcess) -> None:
    many = request_pb2.GenerateRequest()
    many.MergeFromString(b"\x22\x00" * 2_000_000)
    assert len(many.messages) == 2_000_000
    with connect(synthetic_server.target) as caller:
        failure = failure_of(lambda: caller.stub.Generate(many, timeout=SECONDS))
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [""])  # the request as a whole


def test_a_minimum_above_the_default_maximum_is_refused(synthetic_server: ServerProcess) -> None:
    with connect(synthetic_server.target) as caller:
        stopping = {"min_output_tokens": caller.model.limits.default_max_output_tokens + 1}
        assert caller.failure(prompt="a", stopping=stopping).fields == ["stopping.min_output_tokens"]


def test_the_error_of_a_full_queue_says_when_to_retry() -> None:
    flags = ("-o", "slots=1", "-o", "tokens_per_second=20", "--max-queued-requests", "0")
    with start_server("--engine", "synthetic", *flags) as server, connect(server.target) as caller:
        running = caller.stub.Generate.future(request(**HELD), timeout=SECONDS)
        caller.wait_until(lambda now: now.running == 1)
        failure = caller.failure(prompt="a")
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert failure.retry_seconds is not None
        assert failure.retry_seconds > 0
        running.cancel()
        assert caller.wait_until(lambda now: now.running == 0).refusals == 2


def test_a_time_limit_can_end_a_request_in_the_queue() -> None:
    flags = ("--engine", "synthetic", "-o", "slots=1", "-o", "tokens_per_second=20")
    with start_server(*flags) as server, connect(server.target) as caller:
        prompt_tokens = caller.generate(prompt="Late.", stopping={"max_output_tokens": 1}).start.prompt_tokens
        running = caller.stub.Generate.future(request(**HELD), timeout=SECONDS)
        caller.wait_until(lambda now: now.running == 1)
        brief = {"time_limit": "0.01s"}
        late = caller.generate(prompt="Late.", stopping=brief)
        assert late.summary.finish_reason == answer_pb2.FINISH_REASON_TIME_LIMIT
        assert (late.text, late.start.prompt_tokens) == ("", prompt_tokens)
        assert not late.summary.timings.HasField("time_to_first_token")
        resumed = caller.stream(prompt="Late.", stopping=brief, continue_from={"token_ids": [40, 41, 42]})
        assert len(resumed) == 1
        assert resumed[0].summary.usage.output_tokens == 3
        too_long = {**brief, "max_output_tokens": 1_000_000}
        assert caller.failure(prompt="Late.", stopping=too_long).fields == ["stopping.max_output_tokens"]
        running.cancel()
