"""Attacks by callers without a key: idle connections, and calls that fill the log."""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing import get_context

from support.http2 import END_HEADERS, END_STREAM, GREETING, Kind, RawConnection, frame, header_block, raw_connection

ATTACK_SECONDS = 5.0
IDLE = 1_000
GENERATE = "/doherty.v1.GenerationService/Generate"
UNDECODABLE = header_block(GENERATE, *((f"x-{number}", "\udcff" * 100) for number in range(120)))
"""Metadata of 13 kB that is not UTF-8."""

UNPARSABLE = header_block(GENERATE) + b"\x00\x02te\x01x" * 2_400
"""2,400 headers that gRPC's core cannot parse, without HPACK's table."""

WITHOUT_KEY = header_block(GENERATE)


def idle_connections(target: str, _: str) -> None:
    """Holds connections that send only the preface.

    Connections that the server closes are replaced. A separate process does that, because it would otherwise slow the
    honest callers of this process down.
    """
    attacker = get_context("spawn").Process(target=hold_idle, args=(target,))
    attacker.start()
    attacker.join()


def hold_idle(target: str) -> None:
    """Runs in that process."""
    ends_at = time.monotonic() + ATTACK_SECONDS
    with ExitStack() as stack:
        open_ones: list[RawConnection] = []
        while time.monotonic() < ends_at:
            open_ones = [opened for opened in open_ones if not opened.is_closed()]
            for _number in range(IDLE - len(open_ones)):
                with suppress(OSError):
                    connection = RawConnection(target)
                    stack.callback(connection.close)
                    connection.send(GREETING)
                    open_ones.append(connection)
            time.sleep(0.01)


def calls(block: bytes, number: int) -> Callable[[str, str], None]:
    """Makes a number of calls with the same headers, 100 at a time."""

    def attack(target: str, _: str) -> None:
        for _round in range(number // 100):
            with suppress(OSError), raw_connection(target) as connection:
                connection.send(GREETING)
                for index in range(100):
                    connection.send(frame(Kind.HEADERS, END_HEADERS | END_STREAM, 2 * index + 1, block))
                seen = set[int]()
                for received in connection.frames():
                    seen.add(received.stream)
                    if received.kind == Kind.GOAWAY or len(seen) > 100:
                        break

    return attack


STRANGERS = {
    "1,000 idle connections": idle_connections,
    "undecodable metadata, 4 MB": calls(UNDECODABLE, 300),
    "unparsable headers, 4.5 MB": calls(UNPARSABLE, 300),
    "10,000 calls without a key": calls(WITHOUT_KEY, 10_000),
}
