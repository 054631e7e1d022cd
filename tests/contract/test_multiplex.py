"""MultiplexGenerate: messages and failing requests."""

import random
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.answer_pb2 import FINISH_REASON_TIME_LIMIT
from doherty.v1.request_pb2 import GenerateRequest
from support.multiplex import Rpc, failure_in, opened, start, text_of
from support.server import ServerProcess
from support.wire import SECONDS, Caller, connect, failure_of, request

ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 6000, "ignore_eos": True}}
SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}
OK_WORK: list[dict[str, Any]] = [
    {"prompt": "Why is the sky blue?", "stopping": {"max_output_tokens": 30}},
    {"prompt": "emoji 😀 😁", "sampling": {"temperature": 0.7, "seed": 3}, "output": {"token_ids": True}},
    {"raw_text": "It was", "stopping": {"stop_texts": ["a"]}, "output": {"token_ids": True, "top_logprobs": 2}},
    {"prompt": "b", "continue_from": {"text": "The sea is"}, "stopping": {"max_output_tokens": 12}},
    {"prompt": "c", "stopping": {"max_output_tokens": 1}},
]


@pytest.fixture(scope="module")
def caller(synthetic_server: ServerProcess) -> Iterator[Caller]:
    with connect(synthetic_server.target) as connected:
        yield connected


@pytest.fixture
def rpc(caller: Caller) -> Iterator[Rpc]:
    with opened(caller.stub) as opened_rpc:
        yield opened_rpc


def untimed(message: Any) -> Any:
    """Returns a start or a summary without the fields that differ between calls."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name in ("timings", "request_id", "seed"):
        if name in copy.DESCRIPTOR.fields_by_name:
            copy.ClearField(name)
    return copy


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
def test_multiplexed_answers_equal_those_of_separate_calls(caller: Caller, rpc: Rpc, *, whole: bool) -> None:
    rpc.send(*(start(number, whole=whole, **OK_WORK[number % len(OK_WORK)]) for number in range(1, 41)))
    rpc.rest()
    answers = [caller.stream(**fields) for fields in OK_WORK]
    for number in range(1, 41):
        parts, alone = rpc.parts(number), answers[number % len(OK_WORK)]
        assert text_of(parts) == "".join(part.delta.text for part in alone)
        for name in ("token_ids", "logprobs"):
            assert [value for part in parts for value in getattr(part.response.delta, name)] == [
                value for part in alone for value in getattr(part.delta, name)
            ]
        assert sum(part.response.delta.token_count for part in parts) == sum(part.delta.token_count for part in alone)
        assert untimed(parts[0].response.start) == untimed(alone[0].start)
        assert untimed(parts[-1].response.summary) == untimed(alone[-1].summary)
        assert len(parts) == 1 or not whole


def test_a_step_of_the_engine_is_one_message(caller: Caller) -> None:
    """All running answers get their tokens in the same step. On a busy machine, they may begin in different steps."""
    fields: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 40, "ignore_eos": True}}
    messages: list[wire.MultiplexGenerateResponse] = []
    for _ in range(5):
        with opened(caller.stub) as rpc:
            rpc.send(*(start(number, **fields) for number in range(1, 33)))
            rpc.rest()
            messages = rpc.messages
        if len(messages) <= 40 + 2:
            break
    assert len(messages) <= 40 + 2  # requests that begin during a step may be a step behind
    assert sum(len(message.parts) for message in messages) > 8 * len(messages)


def test_requests_start_and_end_while_others_run(rpc: Rpc) -> None:
    rpc.send(start(7, **ENDLESS))
    rpc.first(7)
    rpc.send(start(8, **SHORT), start(2**64 - 1, whole=True, **SHORT))
    for number in (8, 2**64 - 1):
        assert rpc.last(number).response.summary.usage.output_tokens == 4
    rpc.send(cancels=[7])
    failure = rpc.failure(7)
    assert (failure.code, failure.reason, failure.domain) == (grpc.StatusCode.CANCELLED, "CANCELLED", "doherty")
    rpc.rest()


def test_a_cancel_in_the_message_of_its_start_ends_the_request_once(rpc: Rpc) -> None:
    """This holds even if the request has not been handled yet."""
    rpc.send(start(1, **ENDLESS), start(2, **SHORT), start(3, whole=True, **ENDLESS), cancels=[1, 3, 3])
    assert rpc.failure(1).reason == "CANCELLED"
    assert rpc.failure(3).reason == "CANCELLED"
    assert rpc.last(2).response.HasField("summary")
    rpc.rest()


def test_cancels_of_unknown_ids_are_ignored(rpc: Rpc) -> None:
    rpc.send(cancels=[5])
    rpc.send(start(1, **SHORT))
    rpc.last(1)
    rpc.send(cancels=[1, 1, 99])
    rpc.send()
    rpc.send(start(5, **SHORT))
    assert rpc.last(5).response.HasField("summary")
    rpc.rest()


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
def test_each_request_has_its_own_deadline(rpc: Rpc, *, whole: bool) -> None:
    rpc.send(
        start(1, whole=whole, timeout=1.5, request_id="late", **ENDLESS),
        start(2, whole=whole, timeout=0, **SHORT),
        start(3, whole=whole, timeout=-1, **SHORT),
        start(4, whole=whole, timeout=60, **SHORT),
    )
    for number in (1, 2, 3):
        failure = rpc.failure(number)
        assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED")
    assert rpc.failure(1).request_id == "late"
    assert rpc.last(1).timings.HasField("time_to_first_token")
    assert rpc.last(4).response.HasField("summary")
    assert whole or text_of(rpc.parts(1))
    rpc.rest()


def test_a_time_limit_differs_from_a_deadline(rpc: Rpc) -> None:
    limited: dict[str, Any] = {
        "prompt": "a",
        "stopping": {"max_output_tokens": 6000, "ignore_eos": True, "time_limit": "0.2s"},
    }
    rpc.send(start(1, timeout=20, **limited))
    assert rpc.last(1).response.summary.finish_reason == FINISH_REASON_TIME_LIMIT
    rpc.rest()


WRONG: list[dict[str, Any]] = [
    {},
    {"prompt": "a", "raw_text": "b"},
    {"prompt": "a", "stopping": {"stop_texts": [""] * 12}, "sampling": {"temperature": -1}},
    {"prompt": "a", "request_id": "ü"},
    {"prompt": "a", "model": "another"},
    {"prompt": "a", "adapter": "nobody"},
    {"prompt": "a", "priority": 77},
    {"prompt": "a " * 9000},
]


def test_an_invalid_request_gets_the_status_of_a_separate_call(caller: Caller, rpc: Rpc) -> None:
    rpc.send(*(start(number, **wrong) for number, wrong in enumerate(WRONG, 1)), start(20, **SHORT))
    for number, wrong in enumerate(WRONG, 1):
        alone, beside = failure_of(lambda wrong=wrong: caller.generate(**wrong)), rpc.failure(number)
        assert (beside.code, beside.reason, beside.domain) == (alone.code, alone.reason, "doherty")
        assert (beside.message, beside.fields) == (alone.message, alone.fields)
        assert beside.request_id
    assert rpc.last(20).response.HasField("summary")
    rpc.rest()


def test_a_field_of_a_newer_contract_fails_its_request(rpc: Rpc) -> None:
    newer = GenerateRequest.FromString(request(**SHORT).SerializeToString() + b"\xf8\x3f\x01")
    rpc.send(wire.MultiplexStart(id=1, request=newer), start(2, **SHORT), wire.MultiplexStart(id=3))
    failure = rpc.failure(1)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNIMPLEMENTED, "FIELD_NOT_SUPPORTED")
    assert failure.fields == ["1023"]
    assert rpc.failure(3).code is grpc.StatusCode.INVALID_ARGUMENT
    assert rpc.last(2).response.HasField("summary")
    rpc.rest()


def test_many_long_refusals_fit_into_the_default_message_size(rpc: Rpc) -> None:
    """Hundreds fail at the same time with all possible details, and a caller accepts 4 MiB by default."""
    wordy: dict[str, Any] = {"prompt": "a", "stopping": {"stop_texts": [""] * 16}, "request_id": "r" * 128}
    rpc.send(*(start(number, **wordy) for number in range(1, 2001)))
    rpc.rest()
    assert len(rpc.ended) == 2000
    assert max(message.ByteSize() for message in rpc.messages) < 1 << 20


BROKEN: dict[str, tuple[bytes, str, list[str]]] = {
    "the same id twice": (
        wire.MultiplexGenerateRequest(starts=[start(3, **SHORT), start(3, **SHORT)]).SerializeToString(),
        "INVALID_FIELD",
        ["starts[1].id"],
    ),
    "an id that falls": (
        wire.MultiplexGenerateRequest(starts=[start(1, **SHORT)]).SerializeToString(),
        "INVALID_FIELD",
        ["starts[0].id"],
    ),
    "an id of zero": (
        wire.MultiplexGenerateRequest(starts=[start(0, **SHORT)]).SerializeToString(),
        "INVALID_FIELD",
        ["starts[0].id"],
    ),
    "no bytes of ours": (b"\x0a\xff", "MALFORMED_MESSAGE", [""]),
    "a field of a newer message": (b"\xf8\x3f\x01", "FIELD_NOT_SUPPORTED", ["1023"]),
    "a field of a newer start": (b"\x0a\x05\x08\x09\xf8\x3f\x01", "FIELD_NOT_SUPPORTED", ["starts.1023"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_invalid_message_ends_the_rpc(caller: Caller, name: str) -> None:
    data, reason, fields = BROKEN[name]
    method = "/doherty.v1.GenerationService/MultiplexGenerate"
    parse = wire.MultiplexGenerateResponse.FromString
    before = caller.wait_until(lambda now: not now.running)
    first = wire.MultiplexGenerateRequest(starts=[start(2, **ENDLESS)]).SerializeToString()
    sent = iter([first, data])
    call: Any = caller.channel.stream_stream(method, response_deserializer=parse)
    failure = failure_of(lambda: list(call(sent, timeout=SECONDS)))
    expected = grpc.StatusCode.UNIMPLEMENTED if reason == "FIELD_NOT_SUPPORTED" else grpc.StatusCode.INVALID_ARGUMENT
    assert (failure.code, failure.reason, failure.fields) == (expected, reason, fields)
    now = caller.wait_until(lambda now: not now.running and not now.queued)
    assert sum(abort.count for abort in now.aborts) <= sum(abort.count for abort in before.aborts) + 1


def test_ids_begin_with_one(rpc: Rpc) -> None:
    rpc.send(start(0, **SHORT))
    failure = failure_of(rpc.read)
    assert (failure.fields, failure.message) == (["starts[0].id"], "starts[0].id: must be at least 1")


def test_answers_continue_after_half_closing(caller: Caller, rpc: Rpc) -> None:
    rpc.send(*(start(number, **SHORT) for number in range(1, 9)))
    rpc.rest()
    assert rpc.call.code() is grpc.StatusCode.OK
    with opened(caller.stub) as nothing:
        nothing.rest()
        assert nothing.call.code() is grpc.StatusCode.OK


def test_every_request_ends_exactly_once(caller: Caller, rpc: Rpc) -> None:
    """Cancels and deadlines meet requests in every possible state; `Rpc` counts the ends of requests."""
    dice = random.Random(6)  # noqa: S311 - test data
    for first in range(1, 1000, 20):
        numbers = range(first, first + 20)
        rpc.send(
            *(
                start(
                    number,
                    whole=dice.random() < 0.3,
                    timeout=dice.choice([None, 0, 0.001, 0.01, 0.05]),
                    prompt=dice.choice(["", "a", "b"]),
                    stopping={"max_output_tokens": dice.choice([1, 2, 10]), "ignore_eos": True},
                )
                for number in numbers
            ),
            cancels=dice.sample(range(1, first + 20), dice.randrange(10)),
        )
        rpc.send(cancels=dice.sample(numbers, 5))
        while len(rpc.ended) < first - 60:
            rpc.read()
    rpc.rest()
    caller.wait_until(lambda now: (now.running, now.queued) == (0, 0))


def test_a_status_is_never_ok_and_has_its_timings(rpc: Rpc) -> None:
    rpc.send(start(1, timeout=1.5, **ENDLESS))
    last = rpc.last(1)
    failure_in(last)
    assert last.timings.time_to_first_token.ToNanoseconds() > 0
    assert not last.HasField("response")
