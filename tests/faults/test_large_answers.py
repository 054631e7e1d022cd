"""Answers with many tokens, and with many alternatives to each token."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from support.http2 import ACK, END_HEADERS, END_STREAM, PREFACE, Kind, frame, header_block, raw_connection
from support.multiplex import opened, start, text_of
from support.server import ServerProcess, start_server
from support.wire import Caller, connect, request

MAX_OUTPUTS = 32_768
"""The number of outputs that may wait for the reader of a stream."""

CLIENTS_LIMIT = 4 << 20
"""The default maximum size of a message in gRPC's clients, in bytes."""

NO_WINDOW = (4).to_bytes(2) + (0).to_bytes(4)
"""SETTINGS_INITIAL_WINDOW_SIZE 0: the server may not send data."""

CANCEL = (8).to_bytes(4)

SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    flags = ("-o", "tokens_per_second=0", "-o", "context_tokens=40000")
    with start_server("--engine", "synthetic", *flags) as server:
        yield server


@pytest.fixture(scope="module")
def fast(server: ServerProcess) -> Iterator[Caller]:
    with connect(server.target) as caller:
        yield caller


def long(tokens: int, **fields: Any) -> dict[str, Any]:
    return {"prompt": "a", "stopping": {"max_output_tokens": tokens, "ignore_eos": True}, **fields}


def test_a_unary_answer_may_have_more_outputs_than_the_limit_of_unread_ones(fast: Caller) -> None:
    asked = long(MAX_OUTPUTS + 1000)
    answer = fast.generate(**asked)
    assert answer.summary.usage.output_tokens == MAX_OUTPUTS + 1000
    with opened(fast.stub) as rpc:
        rpc.send(start(1, whole=True, **asked))
        part = rpc.last(1)
        assert part.response.summary.usage.output_tokens == MAX_OUTPUTS + 1000
        assert part.response.delta.text == answer.text
        rpc.rest()


def test_no_message_of_a_multiplexed_call_is_too_large_for_its_client(fast: Caller) -> None:
    """This includes all alternatives of the outputs that arrived while the caller did not read."""
    with opened(fast.stub, timeout=60) as rpc:
        rpc.send(*(start(number, **long(8000, output={"top_logprobs": 20})) for number in (1, 2)))
        fast.wait_until(lambda now: now.running == 0)
        rpc.rest()
        assert max(message.ByteSize() for message in rpc.messages) < CLIENTS_LIMIT
        for number in (1, 2):
            assert sum(len(part.response.delta.logprobs) for part in rpc.parts(number)) == 8000


def test_a_unary_answer_that_is_too_large_fails_alone(fast: Caller) -> None:
    with opened(fast.stub) as rpc:
        rpc.send(
            start(1, whole=True, **long(16_000, output={"top_logprobs": 20})),
            start(2, whole=True, **long(2000)),
            start(3, **long(2000)),
        )
        failure = rpc.failure(1)
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
        for number in (2, 3):
            assert rpc.last(number).response.summary.usage.output_tokens == 2000
        assert text_of(rpc.parts(2)) == text_of(rpc.parts(3))
        rpc.send(start(4, **SHORT))
        assert rpc.last(4).response.HasField("summary")
        rpc.rest()


def test_a_large_unary_answer_is_complete(fast: Caller) -> None:
    """It is encoded in hundreds of pieces, but is smaller than the limit of a client."""
    asked = long(6000, output={"top_logprobs": 20, "token_ids": True})
    answer = fast.generate(**asked)
    with opened(fast.stub) as rpc:
        rpc.send(start(1, whole=True, **asked))
        rpc.rest()
        (part,) = rpc.parts(1)
    delta = part.response.delta
    assert part.response.start.prompt_tokens == answer.start.prompt_tokens
    assert part.response.summary.usage == answer.summary.usage
    assert delta.token_count == len(answer.token_ids) == len(answer.logprobs) == 6000
    assert [logprob.token_id for logprob in answer.logprobs] == list(answer.token_ids)
    assert (delta.text, delta.token_ids, delta.logprobs) == (answer.text, answer.token_ids, answer.logprobs)


def test_a_caller_that_leaves_during_a_unary_answer_is_recorded(server: ServerProcess) -> None:
    asked = request(request_id="left", **long(2000, output={"top_logprobs": 20})).SerializeToString()
    with raw_connection(server.target) as connection:
        connection.send(PREFACE, frame(Kind.SETTINGS, payload=NO_WINDOW), frame(Kind.SETTINGS, ACK))
        connection.send(frame(Kind.HEADERS, END_HEADERS, 1, header_block("/doherty.v1.GenerationService/Generate")))
        connection.send(frame(Kind.DATA, END_STREAM, 1, b"\0" + len(asked).to_bytes(4) + asked))
        # The initial metadata arrive together with the answer.
        next(received for received in connection.frames() if received.kind == Kind.HEADERS)
        connection.send(frame(Kind.RST_STREAM, stream=1, payload=CANCEL))
        assert server.wait_for("request", request_id="left")["code"] == "CANCELLED"
