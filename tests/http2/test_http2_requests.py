"""HTTP messages (RFC 9113, section 8)."""

from support.conformance import (
    EMPTY_MESSAGE,
    GET_MODEL,
    Case,
    Check,
    answers,
    complete_request,
    connection_error,
    malformed,
    opened,
)
from support.http2 import END_HEADERS, END_STREAM, Error, Kind, frame, header_block, literals
from support.markers import parametrize
from support.server import ServerProcess

METHOD, SCHEME, PATH = (":method", "POST"), (":scheme", "http"), (":path", GET_MODEL)
AUTHORITY, TE, TYPE = (":authority", "localhost"), ("te", "trailers"), ("content-type", "application/grpc")
REQUEST = (METHOD, SCHEME, PATH, AUTHORITY, TE, TYPE)
MESSAGE = frame(Kind.DATA, 0, 1, EMPTY_MESSAGE)


def request(rule: str, *fields: tuple[str, str], check: Check = malformed) -> Case:
    """A case with a request that has exactly these header fields."""
    return Case(rule, complete_request(1, literals(*fields)), check)


def without(field: tuple[str, str], *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The header fields of a valid request without one of them; `before` are added in front."""
    return (*more, *(header for header in REQUEST if header != field))


def with_field(rule: str, name: str, value: str) -> Case:
    """A case with a request that is valid except for an additional header field."""
    return request(rule, *REQUEST, (name, value))


def with_length(rule: str, length: str, *data: bytes, check: Check = malformed) -> Case:
    """A case with a request that declares the length of its body."""
    frames = [frame(Kind.DATA, 0, 1, part) for part in data[:-1]] + [frame(Kind.DATA, END_STREAM, 1, data[-1])]
    return Case(rule, opened(1, literals(*REQUEST, ("content-length", length))) + b"".join(frames), check)


def with_trailers(rule: str, flags: int, *fields: tuple[str, str], check: Check = malformed) -> Case:
    """A case with a request that has trailers, which no gRPC client sends."""
    return Case(rule, opened() + MESSAGE + frame(Kind.HEADERS, END_HEADERS | flags, 1, literals(*fields)), check)


FRAMING = [
    with_trailers("8.1: trailers", END_STREAM, ("x-trailer", "a"), check=answers()),
    with_trailers("8.1: trailers without END_STREAM", 0, ("x-trailer", "a")),
    with_length("8.1.1: the length of the body", "5", EMPTY_MESSAGE, check=answers()),
    with_length("8.1.1: the length of the body in parts", "5", bytes(2), bytes(3), check=answers()),
    with_length("8.1.1: a body that is longer than its length", "1", EMPTY_MESSAGE),
    with_length("8.1.1: a body that is shorter than its length", "6", EMPTY_MESSAGE),
    with_length("8.1.1: a body in parts that is longer than its length", "4", bytes(2), bytes(3)),
    with_length("8.1.1: a length that is no number", "five", EMPTY_MESSAGE),
    with_length("8.1.1: a length below 0", "-5", EMPTY_MESSAGE),
    with_length("8.1.1: a length that overflows", "18446744073709551621", EMPTY_MESSAGE),
]
FIELDS = [
    with_field("8.2: upper case in a name", "X-Test", "a"),
    with_field("8.2.1: a blank in a name", "x test", "a"),
    with_field("8.2.1: a colon in a name", "x:test", "a"),
    with_field("8.2.1: a control character in a name", "x\x01", "a"),
    with_field("8.2.1: a name that is not ASCII", "x\udcff", "a"),
    with_field("8.2.1: no name", "", "a"),
    with_field("8.2.1: NUL in a value", "x-test", "a\0b"),
    with_field("8.2.1: LF in a value", "x-test", "a\nb"),
    with_field("8.2.1: CR in a value", "x-test", "a\rb"),
    with_field("8.2.1: a blank before a value", "x-test", " a"),
    with_field("8.2.1: a tab after a value", "x-test", "a\t"),
    with_field("8.2.2: connection", "connection", "keep-alive"),
    with_field("8.2.2: keep-alive", "keep-alive", "timeout=5"),
    with_field("8.2.2: proxy-connection", "proxy-connection", "keep-alive"),
    with_field("8.2.2: transfer-encoding", "transfer-encoding", "chunked"),
    with_field("8.2.2: upgrade", "upgrade", "h2c"),
    request("8.2.2: te other than trailers", *without(TE), ("te", "trailers, deflate")),
    request("8.2.3: cookies in parts", *REQUEST, ("cookie", "a=b"), ("cookie", "c=d"), check=answers()),
]
PSEUDO_HEADERS = [
    request("8.3: an unknown pseudo-header", (":test", "a"), *REQUEST),
    request("8.3: a pseudo-header of responses", (":status", "200"), *REQUEST),
    request("8.3: a pseudo-header after other fields", *without(PATH), PATH),
    with_trailers("8.3: a pseudo-header in trailers", END_STREAM, METHOD),
    request("8.3.1: no :method", *without(METHOD)),
    request("8.3.1: no :scheme", *without(SCHEME)),
    request("8.3.1: no :path", *without(PATH)),
    request("8.3.1: an empty :path", *without(PATH, (":path", ""))),
    request("8.3.1: a :path without a slash", *without(PATH, (":path", GET_MODEL[1:]))),
    request("8.3.1: two :method", METHOD, *REQUEST),
    request("8.3.1: two :scheme", SCHEME, *REQUEST),
    request("8.3.1: two :path", PATH, *REQUEST),
    request("8.3.1: two :authority", AUTHORITY, *REQUEST),
    request("8.3.1: host in the place of :authority", *without(AUTHORITY), ("host", "localhost"), check=answers()),
    request("8.5: CONNECT with a path", *without(METHOD, (":method", "CONNECT"))),
    request(
        "8.5: an extended CONNECT that nobody announced",
        *without(METHOD, (":method", "CONNECT"), (":protocol", "websocket")),
    ),
]
EXCHANGES = [
    request("8: GET", *without(METHOD, (":method", "GET"))),
    request("8: HEAD", *without(METHOD, (":method", "HEAD"))),
    Case("8.8: many requests on one connection", b"".join(map(complete_request, range(1, 60, 2))), answers(59)),
    Case(
        "8.8: messages that overlap",
        opened(1) + complete_request(3) + frame(Kind.DATA, END_STREAM, 1, EMPTY_MESSAGE),
        answers(1),
    ),
    Case(
        "8.4: PUSH_PROMISE",
        frame(Kind.PUSH_PROMISE, END_HEADERS, 1, bytes([0, 0, 0, 2]) + header_block("/a")),
        connection_error(Error.PROTOCOL_ERROR),
    ),
]


@parametrize(*FRAMING, *FIELDS)
def test_messages_and_fields(http2_server: ServerProcess, case: Case) -> None:
    case.run(http2_server.target)


@parametrize(*PSEUDO_HEADERS, *EXCHANGES)
def test_pseudo_headers_and_exchanges(http2_server: ServerProcess, case: Case) -> None:
    case.run(http2_server.target)
