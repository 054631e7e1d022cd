"""Thousands of calls that are started and reset immediately (CVE-2023-44487)."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from support.http2 import END_HEADERS, END_STREAM, GREETING, RESET, Kind, frame, header_block, raw_connection
from support.server import start_server
from support.transports import TRANSPORT
from support.wire import connect

SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 3}}
HEADERS = header_block("/doherty.v1.GenerationService/Generate")
MESSAGE = frame(Kind.DATA, END_STREAM, 0, b"\0\0\0\0\x03\x1a\x01a")
"""A request with the prompt "a"; the stream number is inserted before it is sent."""

CALLS = 20_000

ENDED: tuple[type[OSError], ...] = (OSError,) if TRANSPORT == "http2" else ()
"""The errors of the attacker when the server closes the connection, which only the transport http2 does."""


def resets(first: int, *, whole: bool) -> bytes:
    """Returns a hundred calls that are reset before or after their message."""
    sent = []
    for stream in range(first, first + 200, 2):
        sent.append(frame(Kind.HEADERS, END_HEADERS, stream, HEADERS))
        if whole:
            sent.append(MESSAGE[:5] + stream.to_bytes(4) + MESSAGE[9:])
        sent.append(frame(Kind.RST_STREAM, 0, stream, RESET))
    return b"".join(sent)


@pytest.mark.parametrize("whole", [False, True], ids=["headers", "requests"])
def test_others_are_served_and_all_resources_are_freed(whole: bool) -> None:  # noqa: FBT001 - a parameter of the table
    with start_server("--engine", "synthetic") as server, connect(server.target) as caller:
        with raw_connection(server.target) as attacker, ThreadPoolExecutor(2) as pool:
            attacker.send(GREETING)
            answers = pool.submit(lambda: [caller.generate(**SHORT) for _ in range(50)])
            with suppress(*ENDED):
                for first in range(1, 2 * CALLS, 200):
                    attacker.send(resets(first, whole=whole))
            kinds = pool.submit(lambda: Counter(received.kind for received in attacker.frames()))
            assert len(answers.result()) == 50
            caller.wait_until(lambda now: now.running == 0 and now.queued == 0)
            if TRANSPORT == "http2":
                kinds.result()  # the server has closed the connection
            with suppress(*ENDED):
                attacker.shut()
            # gRPC's core has refused most of them before they reach our code.
            assert kinds.result()[Kind.RST_STREAM] > CALLS / 2 or TRANSPORT == "http2"
        caller.generate(**SHORT)
