"""Messages of the maximum size whose parts are expensive to handle."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from doherty.v1.generation_service_pb2 import CountTokensRequest, MultiplexGenerateRequest, MultiplexStart
from doherty.v1.request_pb2 import ROLE_USER, Choices, Constraint, ContinueFrom, GenerateRequest, Message, Stopping
from doherty_service.rpc import Turns
from support.memory import peak_bytes
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Failure, failure_of

SIZE = 4_000_000
SERVICE = "/doherty.v1.GenerationService"
MEBIBYTE = 1 << 20
INVALID, UNIMPLEMENTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED
LETTERS, IDS = "a" * SIZE, bytes(SIZE)
UNKNOWN = b"\xf8\x01\x01" * (SIZE // 3)
"""Field 31, repeated."""
PROMPT = GenerateRequest(prompt="a").SerializeToString()
CONVERSATION = [Message(role=ROLE_USER, content="a")] * 4096


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with start_server("--engine", "synthetic", "-o", "context_tokens=16384") as running:
        yield running


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + varint(rest)


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def many(number: int, size: int = SIZE) -> bytes:
    """Repeats an empty field until it has this many bytes."""
    return field(number, b"") * (size // 2 - 8)


def a_start(request: bytes = b"", around: bytes = b"") -> bytes:
    return field(1, MultiplexStart(id=1).SerializeToString() + field(2, request) + around)


def serialized_request(**fields: Any) -> bytes:
    return GenerateRequest(**fields).SerializeToString()


def failure(server: ServerProcess, method: str, message: bytes) -> Failure:
    with grpc.insecure_channel(server.target) as channel:
        call: Any = channel.stream_stream(f"{SERVICE}/{method}")
        return failure_of(lambda: list(call(iter([message]), timeout=SECONDS)))


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        pytest.param("Generate", UNKNOWN, INVALID, id="unknown fields"),
        pytest.param("GetModel", UNKNOWN, INVALID, id="unknown fields of a message without any"),
        pytest.param("MultiplexGenerate", a_start(around=UNKNOWN), UNIMPLEMENTED, id="unknown fields around a start"),
        pytest.param("MultiplexGenerate", UNKNOWN, UNIMPLEMENTED, id="unknown fields around all starts"),
        pytest.param("MultiplexGenerate", a_start(UNKNOWN), INVALID, id="unknown fields in a start"),
        pytest.param("MultiplexGenerate", a_start(many(4)), INVALID, id="messages in a start"),
        pytest.param("Generate", many(4), INVALID, id="messages"),
        pytest.param("CountTokens", many(3), INVALID, id="messages to count"),
        pytest.param("Generate", PROMPT + field(7, many(3)), INVALID, id="stop texts"),
        pytest.param("Generate", PROMPT + field(10, field(4, many(1))), INVALID, id="choices"),
        pytest.param("Generate", b"\x0b\x0c" * 100 + many(4), INVALID, id="messages behind a group"),
        pytest.param("Generate", b"\x30\1" * (SIZE // 2), INVALID, id="numbers that are not packed"),
    ],
)
def test_too_many_fields_are_refused_before_parsing(
    server: ServerProcess, method: str, message: bytes, code: grpc.StatusCode
) -> None:
    failure(server, method, b"\xff")  # allocates memory that later calls reuse
    before = peak_bytes(server)
    assert failure(server, method, message).code is code
    assert peak_bytes(server) - before < 32 * MEBIBYTE


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (serialized_request(token_ids=IDS), "token_ids"),
        (serialized_request(prompt="a", continue_from=ContinueFrom(token_ids=IDS)), "continue_from.token_ids"),
        (serialized_request(prompt="a", continue_from=ContinueFrom(text=LETTERS)), "continue_from.text"),
        (serialized_request(prompt=LETTERS), "prompt"),
        (serialized_request(raw_text=LETTERS), "raw_text"),
        (serialized_request(messages=[Message(role=ROLE_USER, content=LETTERS)]), "messages"),
        (serialized_request(prompt="a", stopping=Stopping(stop_token_ids=IDS)), "stopping.stop_token_ids"),
        (serialized_request(prompt="a", constraint=Constraint(json_schema=LETTERS)), "constraint.json_schema"),
        (serialized_request(prompt="a", constraint=Constraint(regex=LETTERS)), "constraint.regex"),
        (serialized_request(prompt="a", constraint=Constraint(grammar=LETTERS)), "constraint.grammar"),
        (
            serialized_request(prompt="a", constraint=Constraint(choices=Choices(choices=[LETTERS]))),
            "constraint.choices",
        ),
        (
            serialized_request(prompt="a", constraint=Constraint(choices=Choices(choices=["a"] * 3000))),
            "constraint.choices",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inputs_longer_than_the_context_are_refused_by_length(server: ServerProcess, message: bytes, name: str) -> None:
    error = failure(server, "Generate", message)
    assert (error.code, error.reason, error.fields) == (INVALID, "INVALID_FIELD", [name])
    assert failure(server, "StreamGenerate", message).fields == [name]


def test_all_lengths_are_reported_together(server: ServerProcess) -> None:
    long = serialized_request(raw_text=LETTERS[: SIZE // 2], continue_from=ContinueFrom(token_ids=bytes(SIZE // 3)))
    assert failure(server, "Generate", long).fields == ["raw_text", "continue_from.token_ids"]


def test_inputs_too_long_to_count_are_refused_by_length(server: ServerProcess) -> None:
    long = CountTokensRequest(raw_text=LETTERS).SerializeToString()
    assert failure(server, "CountTokens", long).fields == ["raw_text"]


def test_long_unknown_names_are_shortened(server: ServerProcess) -> None:
    error = failure(server, "Generate", serialized_request(prompt="a", model=LETTERS))
    assert (error.reason, len(error.message) < 300) == ("MODEL_NOT_FOUND", True)


def test_the_longest_conversation_is_accepted(server: ServerProcess) -> None:
    message = MultiplexGenerateRequest(
        starts=[
            MultiplexStart(
                id=number, request=GenerateRequest(messages=CONVERSATION, stopping=Stopping(max_output_tokens=1))
            )
            for number in range(1, 4)
        ]
    )
    with grpc.insecure_channel(server.target) as channel:
        call: Any = channel.unary_unary(f"{SERVICE}/Generate")
        assert call(serialized_request(messages=CONVERSATION, stopping=Stopping(max_output_tokens=1)), timeout=SECONDS)
        several: Any = channel.stream_stream(f"{SERVICE}/MultiplexGenerate")
        assert list(several(iter([message.SerializeToString()]), timeout=SECONDS))


def test_a_message_to_another_service_is_small(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.target) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        error = failure_of(lambda: check(field(1, b"a" * 5000), timeout=SECONDS))
    assert error.code is INVALID


async def test_slices_of_work_alternate_with_other_work() -> None:
    """This does not depend on who they are for. Between two slices, the event loop handles other events."""
    turns, done = Turns(), []

    async def work(name: str) -> None:
        for _ in range(3):
            await turns.take()
            done.append(name)

    async def watch() -> None:
        while len(done) < 9:
            seen = len(done)
            await asyncio.sleep(0)
            assert len(done) <= seen + 1

    await asyncio.gather(watch(), *(work(name) for name in "abc"))
    assert "".join(done) == "abc" * 3
