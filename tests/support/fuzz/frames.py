"""HTTP/2 that no client would send: odd headers, damaged messages, and bytes that resemble frames."""

from collections.abc import Callable
from random import Random

from doherty.v1.generation_service_pb2 import CountTokensRequest, MultiplexGenerateRequest, MultiplexStart
from support.http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PRIORITY,
    Kind,
    frame,
    hpack_integer,
    reset,
    settings,
    window_update,
)
from support.raw_rpc import framed
from support.wire import request

_SERVICE = "/doherty.v1.GenerationService/"
_GENERATE = request(prompt="Name three colors.", stopping={"max_output_tokens": 3})
_METHODS: list[tuple[str, bytes]] = [
    (f"{_SERVICE}Generate", _GENERATE.SerializeToString()),
    (f"{_SERVICE}StreamGenerate", _GENERATE.SerializeToString()),
    (f"{_SERVICE}CountTokens", CountTokensRequest(prompt="a").SerializeToString()),
    (f"{_SERVICE}GetModel", b""),
    (
        f"{_SERVICE}MultiplexGenerate",
        MultiplexGenerateRequest(starts=[MultiplexStart(id=1, request=_GENERATE)]).SerializeToString(),
    ),
    ("/doherty.v1.LatencyService/GetLatency", b""),
    ("/grpc.health.v1.Health/Check", b""),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"\x3a\x00"),
    ("/none/None", b"a"),
]
"""Methods whose answers end by themselves, each with a valid message."""

_NAMES = [
    *(b":method", b":scheme", b":path", b":authority", b":status", b":protocol", b":x", b"te", b"content-type"),
    *(b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"grpc-status", b"grpc-message", b"grpc-trace-bin"),
    *(b"grpc-status-details-bin", b"grpc-tags-bin", b"grpc-previous-rpc-attempts", b"grpc-retry-pushback-ms"),
    *(
        b"x-bin",
        b"-bin",
        b"authorization",
        b"traceparent",
        b"tracestate",
        b"baggage",
        b"user-agent",
        b"host",
        b"cookie",
    ),
    *(b"content-length", b"connection", b"transfer-encoding", b"upgrade", b"priority", b"doherty-attempts"),
    *(b"lb-cost-bin", b"", b"X-A", b"x a", b"x:a", b"x\0", b"x\xff", b"\xc3\xa9", b"a" * 5000),
]
_VALUES = [
    *(b"", b"a", b" a ", b"\0", b"a\nb", b"\xff\xfe", b"\xc3\xa9", b"%", b"%zz", b"/", b"*", b"0", b"-1", b"1" * 40),
    *(
        b"trailers",
        b"gzip",
        b"identity",
        b"identity,gzip",
        b"application/grpc",
        b"application/grpc+proto",
        b"text/html",
    ),
    *(b"1n", b"1S", b"99999999H", b"999999999S", b"-1S", b"1", b"S", b"AAE=", b"AAE", b"A", b"!!", b"AAE,AAE", b","),
    *(
        b"Bearer",
        b"Bearer a",
        b"Basic YTph",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"00-zz-zz-zz",
    ),
    *(b"POST", b"GET", b"CONNECT", b"http", b"https", b"localhost:1", b"u=9, i", b"a=b; c", b"a" * 300, b"a" * 9000),
]
_NUMBERS = [0, 1, 2, 5, 127, 128, 255, 16_383, 16_384, 65_535, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
_LITERALS = [0x00, 0x10, 0x40]
_MAX_CHANGES = 3
_MAX_BYTES = 50_000
"""The size of the fields that a single change adds. If it exceeds 256 kB, the server closes the connection."""


def message_input(random: Random, stream: int) -> bytes:
    """Returns a request on `stream` with normal headers and messages, most of which are damaged."""
    path, message = random.choice(_METHODS)
    body = b"".join(_prefixed(random, _damaged(random, message)) for _ in range(random.choice((1, 1, 1, 1, 0, 2, 3))))
    return _headers(random, stream, _usual(path.encode())) + _data(random, stream, body)


def header_input(random: Random, stream: int) -> bytes:
    """Returns a request on `stream` with odd headers and a valid message."""
    path, message = random.choice(_METHODS)
    fields = _usual(path.encode())
    for _ in range(random.randint(1, _MAX_CHANGES)):
        _change_fields(random, fields)
    return _headers(random, stream, fields) + _data(random, stream, framed(message))


def frame_input(random: Random) -> bytes:
    """Returns what may follow a connection preface: frames of any kind, some of them damaged."""
    sent = b"".join(random.choice(_FRAMES)(random) for _ in range(random.randint(1, 8)))
    return _damaged(random, sent)


def _usual(path: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]


def _change_fields(random: Random, fields: list[tuple[bytes, bytes]]) -> None:
    at = random.randrange(len(fields)) if fields else 0
    match random.randrange(8):
        case 0 if fields:
            del fields[at]
        case 1 if fields:
            fields.append(fields[at])
        case 2 if fields:
            fields[at] = (fields[at][0], random.choice(_VALUES))
        case 3 if fields:
            fields[at] = (fields[at][0], _damaged(random, fields[at][1]))
        case 4:
            random.shuffle(fields)
        case 5:
            name, value = random.choice(_NAMES), random.choice(_VALUES)
            times = min(random.choice((2, 50, 600)), _MAX_BYTES // (len(name) + len(value) + 32))
            fields += [(name, value)] * times
        case 6:
            fields.append((random.choice(_NAMES), random.randbytes(random.randrange(30))))
        case _:
            fields.append((random.choice(_NAMES), random.choice(_VALUES)))


def _damaged(random: Random, data: bytes) -> bytes:
    """Returns the data with up to three changes."""
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        at = random.randint(0, len(data))
        match random.randrange(6):
            case 0:
                data = data[:at] + random.randbytes(random.randrange(6)) + data[at:]
            case 1:
                data = data[:at] + data[at + random.randint(1, 9) :]
            case 2 if data:
                at = random.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
            case 3:
                data = data[:at]
            case 4:
                data = data[:at] + data[at // 2 :]
            case _:
                data = data[:at] + random.choice(_NUMBERS).to_bytes(4) + data[at + 4 :]
    return data


def _prefixed(random: Random, message: bytes) -> bytes:
    if random.random() < 0.8:
        return framed(message)
    length = random.choice((len(message) + random.randint(-2, 2), *_NUMBERS))
    return framed(message, random.choice((0, 0, 1, 2, 255)), max(0, length))


def _block(random: Random, fields: list[tuple[bytes, bytes]]) -> bytes:
    """Returns a header block in which every field is a literal of some kind."""
    return b"".join(
        bytes([random.choice(_LITERALS)]) + hpack_integer(len(name), 7) + name + hpack_integer(len(value), 7) + value
        for name, value in fields
    )


def _headers(random: Random, stream: int, fields: list[tuple[bytes, bytes]]) -> bytes:
    """Returns HEADERS, and CONTINUATION if the block is long, or at random."""
    block = _block(random, fields)
    size = random.choice((16_000, 16_000, 16_000, min(16_000, len(block) // 2 + 1)))
    parts = [block[at : at + size] for at in range(0, len(block), size)] or [b""]
    kinds = [Kind.HEADERS] + [Kind.CONTINUATION] * (len(parts) - 1)
    flags = [0] * (len(parts) - 1) + [END_HEADERS]
    return b"".join(frame(kind, flag, stream, part) for kind, flag, part in zip(kinds, flags, parts, strict=True))


def _data(random: Random, stream: int, body: bytes) -> bytes:
    """Returns the body in frames of random sizes, some of them padded; the last one ends the stream."""
    size = random.choice((16_000, 16_000, 16_000, 1, 7, 100))
    sent = []
    for at in range(0, len(body), size):
        part = body[at : at + size]
        if random.random() < 0.1:
            padding = random.randrange(50)
            sent.append(frame(Kind.DATA, PADDED, stream, bytes([padding]) + part + bytes(padding)))
        else:
            sent.append(frame(Kind.DATA, 0, stream, part))
    return b"".join([*sent, frame(Kind.DATA, END_STREAM, stream)])


def _stream(random: Random) -> int:
    return random.choice((0, 1, 1, 1, 2, 3, 5, 99, (1 << 31) - 1, 1 << 31))


_FRAMES: list[Callable[[Random], bytes]] = [
    lambda random: message_input(random, _stream(random)),
    lambda random: header_input(random, _stream(random)),
    lambda random: frame(
        random.randrange(12), random.randrange(256), _stream(random), random.randbytes(random.randrange(40))
    ),
    lambda random: frame(Kind.HEADERS, random.randrange(256), _stream(random), random.randbytes(random.randrange(60))),
    lambda random: frame(
        Kind.HEADERS, END_HEADERS | PRIORITY, _stream(random), random.randbytes(5) + _block(random, _usual(b"/a"))
    ),
    lambda random: frame(
        Kind.CONTINUATION, random.randrange(8), _stream(random), random.randbytes(random.randrange(30))
    ),
    lambda random: settings(*[(random.randrange(8), random.choice(_NUMBERS)) for _ in range(random.randrange(4))]),
    lambda random: frame(Kind.SETTINGS, random.choice((0, ACK)), 0, random.randbytes(random.choice((0, 0, 6, 5)))),
    lambda random: frame(Kind.PING, random.choice((0, ACK)), 0, random.randbytes(random.choice((8, 8, 8, 7)))),
    lambda random: window_update(_stream(random), random.choice(_NUMBERS)),
    lambda random: frame(Kind.PRIORITY, 0, _stream(random), random.randbytes(random.choice((5, 5, 4)))),
    lambda random: reset(_stream(random), random.choice(_NUMBERS)),
    lambda random: frame(Kind.GOAWAY, 0, 0, random.randbytes(random.choice((8, 8, 20, 7)))),
    lambda random: frame(Kind.PUSH_PROMISE, END_HEADERS, _stream(random), random.randbytes(20)),
]
