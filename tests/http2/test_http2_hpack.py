"""Compressed headers (RFC 7541)."""

from hpack import Encoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from support.conformance import GET_MODEL, HEADERS, Case, answers, complete_request, connection_error, opened
from support.http2 import Error, header_block, hpack_integer, literals, reset
from support.markers import parametrize
from support.server import ServerProcess

COMPRESSION = connection_error(Error.COMPRESSION_ERROR)
INDEXED, INCREMENTAL, SIZE_UPDATE = 0x80, 0x40, 0x20
FIRST_DYNAMIC = 62
HUFFMAN = 0x80
TABLE_BYTES = 4096
FIELDS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", GET_MODEL),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("x-a", "b"),
)
LONG = "a" * 5000


def text(value: str) -> bytes:
    """Encodes a string without Huffman code."""
    return hpack_integer(len(value), 7) + value.encode()


def index(number: int) -> bytes:
    """Encodes a field that is in a table."""
    return hpack_integer(number, 7, INDEXED)


def size_update(size: int) -> bytes:
    """Encodes a change of the size of the dynamic table."""
    return hpack_integer(size, 5, SIZE_UPDATE)


def coded(value: str) -> bytes:
    """Encodes a string in Huffman code."""
    data = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(value.encode())
    return hpack_integer(len(data), 7, HUFFMAN) + data


def literal(rule: str, first: int, bits: int) -> list[Case]:
    """Cases with a type of literal: with a name from the static table and a new one, both plain and in Huffman code."""
    cases = []
    for how, write in {"": text, ", in Huffman code": coded}.items():
        path = hpack_integer(4, bits, first) + write(GET_MODEL) + literals(*FIELDS[:2], *FIELDS[3:])
        new = HEADERS + bytes([first]) + write("x-a") + write("b")
        cases += [
            Case(f"{rule}{how}", complete_request(1, path), answers()),
            Case(f"{rule}, a new name{how}", complete_request(1, new), answers()),
        ]
    return cases


def remembered(name: str = "x-a", value: str = "b") -> bytes:
    """Encodes a field that is added to the dynamic table."""
    return bytes([INCREMENTAL]) + text(name) + text(value)


def twice(rule: str, first: bytes, then: bytes) -> Case:
    """A case in which a second request uses entries that the first one added to the dynamic table, and is answered."""
    return Case(rule, first + complete_request(3, then), answers(3))


def wrong(rule: str, block: bytes) -> Case:
    """A case with a header block that cannot be decoded."""
    return Case(rule, opened(1, block), COMPRESSION)


def with_name_in_huffman(rule: str, *data: int) -> Case:
    """A case with a field name that is decoded from these bytes as Huffman code."""
    return wrong(rule, HEADERS + bytes([0, HUFFMAN | len(data), *data]) + text("b"))


VALID = [
    Case(
        "6.1: fields of the static table", complete_request(1, index(3) + index(6) + literals(*FIELDS[2:])), answers()
    ),
    *literal("6.2.1: with indexing", INCREMENTAL, 6),
    *literal("6.2.2: without indexing", 0, 4),
    *literal("6.2.3: never indexed", 0x10, 4),
    Case("5.2: Huffman code", complete_request(1, Encoder().encode(FIELDS, huffman=True)), answers()),
    Case("5.2: an empty value", complete_request(1, HEADERS + literals(("x-a", ""))), answers()),
    Case(
        "5.1: a number that is longer than it need be",
        complete_request(1, HEADERS + b"\0\3x-a" + b"\x7f\x81\0" + b"b" * 128),
        answers(),
    ),
    Case("6.3: the table is emptied", complete_request(1, size_update(0) + HEADERS), answers()),
    Case("6.3: two updates", complete_request(1, size_update(0) + size_update(TABLE_BYTES) + HEADERS), answers()),
    twice(
        "2.3.2: an entry of the dynamic table",
        complete_request(1, HEADERS + remembered()),
        HEADERS + index(FIRST_DYNAMIC),
    ),
    twice(
        "4.4: an entry larger than the table empties it",
        complete_request(1, HEADERS + remembered(value=LONG)),
        HEADERS + remembered() + index(FIRST_DYNAMIC),
    ),
    twice(
        "2.2: the table outlives a malformed request",
        complete_request(1, HEADERS + remembered() + literals(("X-A", "b"))),
        HEADERS + index(FIRST_DYNAMIC),
    ),
    twice(
        "2.2: the table outlives a reset stream",
        opened(1, HEADERS + remembered()) + reset(1),
        HEADERS + index(FIRST_DYNAMIC),
    ),
    twice(
        "2.2: the table outlives a method that does not exist",
        complete_request(1, header_block("/a") + remembered()),
        HEADERS + index(FIRST_DYNAMIC),
    ),
]
INVALID = [
    wrong("2.3.3: an index beyond both tables", HEADERS + index(FIRST_DYNAMIC)),
    wrong(
        "2.3.3: a literal whose name is beyond both tables",
        HEADERS + hpack_integer(FIRST_DYNAMIC, 6, INCREMENTAL) + text("b"),
    ),
    wrong("2.3.3: an entry that was evicted", HEADERS + remembered() + remembered(value=LONG) + index(FIRST_DYNAMIC)),
    wrong("4.2: an update at the end", HEADERS + size_update(0)),
    wrong("4.2: an update between fields", literals(*FIELDS[:2]) + size_update(0) + literals(*FIELDS[2:])),
    wrong("5.1: a number without an end", HEADERS + b"\xff" + b"\x80" * 30),
    wrong("5.1: a number that overflows", HEADERS + b"\xff" + b"\xff" * 12 + b"\1"),
    wrong("5.1: half a number", HEADERS + b"\xff\x80"),
    wrong("5.2: a string that is longer than the block", HEADERS + b"\0\x7fx"),
    wrong("5.2: a string of 4 GB", HEADERS + b"\0" + hpack_integer(1 << 32, 7)),
    wrong("5.2: no value", HEADERS + b"\0" + text("x-a")),
    with_name_in_huffman("5.2: more than 7 bits of padding", 0x1F, 0xFF),
    with_name_in_huffman("5.2: padding of zeros", 0x18),
    with_name_in_huffman("5.2: the end of string", 0xFF, 0xFF, 0xFF, 0xFF),
    wrong("6.1: the index 0", HEADERS + index(0)),
    wrong("6.3: a table larger than the setting", size_update(1 << 24) + HEADERS),
]


@parametrize(*VALID)
def test_a_header_block_is_decoded(http2_server: ServerProcess, case: Case) -> None:
    case.run(http2_server.target)


@parametrize(*INVALID)
def test_a_header_block_is_refused(http2_server: ServerProcess, case: Case) -> None:
    case.run(http2_server.target)
