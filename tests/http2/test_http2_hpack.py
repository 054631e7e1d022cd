"""Compressed headers (RFC 7541)."""

from hpack import Encoder

from support.conformance import GET_MODEL, HEADERS, Case, answers, asked, connection_error, opened, parametrize
from support.http2 import Error, header_block, hpack_integer, literals, reset
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
    """A string without Huffman coding."""
    return hpack_integer(len(value), 7) + value.encode()


def index(number: int) -> bytes:
    """A field that is in a table."""
    return hpack_integer(number, 7, INDEXED)


def size_update(size: int) -> bytes:
    """Sets the size of the dynamic table."""
    return hpack_integer(size, 5, SIZE_UPDATE)


def named(first: int, bits: int) -> bytes:
    """The header block of a request whose path is a literal of a certain kind, with a name from the static table."""
    return hpack_integer(4, bits, first) + text(GET_MODEL) + literals(*FIELDS[:2], *FIELDS[3:])


def unnamed(first: int) -> bytes:
    """The same for a field whose name is a literal, too."""
    return HEADERS + bytes([first]) + text("x-a") + text("b")


def remembered(name: str = "x-a", value: str = "b") -> bytes:
    """A field that is added to the dynamic table."""
    return bytes([INCREMENTAL]) + text(name) + text(value)


def twice(rule: str, first: bytes, then: bytes) -> Case:
    """A first request, and another one that uses its entries of the dynamic table and must be answered."""
    return Case(rule, first + asked(3, then), answers(3))


def wrong(rule: str, block: bytes) -> Case:
    """A header block that cannot be decoded."""
    return Case(rule, opened(1, block), COMPRESSION)


def with_name_in_huffman(rule: str, *data: int) -> Case:
    """A field whose name is these bytes, as Huffman code."""
    return wrong(rule, HEADERS + bytes([0, HUFFMAN | len(data), *data]) + text("b"))


VALID = [
    Case("6.1: fields of the static table", asked(1, index(3) + index(6) + literals(*FIELDS[2:])), answers()),
    Case("6.2.1: with indexing", asked(1, named(INCREMENTAL, 6)), answers()),
    Case("6.2.1: with indexing, a new name", asked(1, unnamed(INCREMENTAL)), answers()),
    Case("6.2.2: without indexing", asked(1, named(0, 4)), answers()),
    Case("6.2.2: without indexing, a new name", asked(1, unnamed(0)), answers()),
    Case("6.2.3: never indexed", asked(1, named(0x10, 4)), answers()),
    Case("6.2.3: never indexed, a new name", asked(1, unnamed(0x10)), answers()),
    Case("5.2: Huffman code", asked(1, Encoder().encode(FIELDS, huffman=True)), answers()),
    Case("5.2: an empty value", asked(1, HEADERS + literals(("x-a", ""))), answers()),
    Case(
        "5.1: a number that is longer than it need be",
        asked(1, HEADERS + b"\0\3x-a" + b"\x7f\x81\0" + b"b" * 128),
        answers(),
    ),
    Case("6.3: the table is emptied", asked(1, size_update(0) + HEADERS), answers()),
    Case("6.3: two updates", asked(1, size_update(0) + size_update(TABLE_BYTES) + HEADERS), answers()),
    twice("2.3.2: an entry of the dynamic table", asked(1, HEADERS + remembered()), HEADERS + index(FIRST_DYNAMIC)),
    twice(
        "4.4: an entry larger than the table empties it",
        asked(1, HEADERS + remembered(value=LONG)),
        HEADERS + remembered() + index(FIRST_DYNAMIC),
    ),
    twice(
        "2.2: the table outlives a malformed request",
        asked(1, HEADERS + remembered() + literals(("X-A", "b"))),
        HEADERS + index(FIRST_DYNAMIC),
    ),
    twice(
        "2.2: the table outlives a reset stream",
        opened(1, HEADERS + remembered()) + reset(1),
        HEADERS + index(FIRST_DYNAMIC),
    ),
    twice(
        "2.2: the table outlives a method that does not exist",
        asked(1, header_block("/a") + remembered()),
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
