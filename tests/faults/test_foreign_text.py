"""Callers without a key cannot write secrets or control characters to the log, or fill a disk with it."""

import time
from pathlib import Path

from doherty_service.telemetry import LineLimit
from support.http2 import END_HEADERS, END_STREAM, GREETING, Kind, frame, header_block, raw_connection
from support.security import add_key, connect_with
from support.server import start_server
from support.transports import TRANSPORT

GENERATE = "/doherty.v1.GenerationService/Generate"
HOSTILE = "\x1b]0;x\x07\x1b[31m\udcff\udc9b"
"""Escape sequences, and bytes that are not UTF-8."""
CALLS = 1_000


def send(target: str, *blocks: bytes) -> None:
    """Sends calls without a message on one connection, and waits until they have ended."""
    with raw_connection(target) as connection:
        connection.send(GREETING)
        for index, block in enumerate(blocks):
            stream = 2 * index + 1
            connection.send(frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, block))
            last = (received for received in connection.frames() if received.stream == stream)
            assert any(received.kind == Kind.RST_STREAM or received.flags & END_STREAM for received in last)


def test_no_metadata_and_no_control_characters_are_logged(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "known")
    secret = token.rpartition("_")[2]
    with start_server("--engine", "synthetic", "--keys-file", str(keys), "--log-level", "debug") as server:
        send(
            server.target,
            header_block(GENERATE, ("authorization", f"Bearer {token}\udcff")),
            header_block(GENERATE, (f"x-{HOSTILE}", "v"), ("authorization", "Bearer x")),
            header_block(GENERATE, ("user-agent", HOSTILE)),
            header_block(GENERATE, ("grpc-timeout", HOSTILE)),
            header_block(f"/{HOSTILE}/{HOSTILE}"),
            header_block("/doherty.v1.X/\x1b[31m\u202e", ("authorization", f"Bearer {token}")),
            # The transport http2 itself refuses the path above.
            header_block("/doherty.v1.X/Y", ("authorization", f"Bearer {token}")),
        )
        with connect_with(server.target, token) as caller:
            caller.failure(prompt="a", request_id="\x1b[31m")
            caller.failure(prompt="a", model="\x9b31m\u202e" * 100)
        assert server.stop() == 0
        server.log += server.read()
    assert all(line["event"] != "text" for line in server.log)  # gRPC's core writes nothing
    if TRANSPORT == "grpcio":
        assert server.wait_for("library")["message"] == "Invalid encoding on"
    written = "".join(server.written)
    assert "METHOD_NOT_SUPPORTED" in written
    assert secret not in written
    assert all(character == "\n" or " " <= character <= "~" for character in written)


def test_a_caller_without_a_key_cannot_fill_the_log(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "known")
    with start_server("--engine", "synthetic", "--keys-file", str(keys)) as server:
        block = header_block(GENERATE, ("x-text", "\udcff" * 100), ("authorization", "Bearer none"))
        begun = time.monotonic()
        send(server.target, *([block] * CALLS))
        with connect_with(server.target, token) as caller:
            assert caller.generate(prompt="Why?", stopping={"max_output_tokens": 1}).text
        server.stop()
        server.log += server.read()
    seconds = time.monotonic() - begun
    # A hundred lines, then ten per second and one for the others; gRPC's; those of the server and of the valid call.
    assert len(server.log) < 150 + 11 * seconds
    suppressed = [int(str(line["lines"])) for line in server.log if line["event"] == "lines_suppressed"]
    logged = sum(line["event"] == "request" for line in server.log)
    assert sum(suppressed) + logged >= CALLS
    assert len(suppressed) < 2 + seconds
    assert server.log[-1]["event"] == "stopped"


def test_lines_beyond_the_limit_are_counted() -> None:
    now = 0.0
    limit = LineLimit(2, 0.5, clock=lambda: now)
    assert [limit.allows() for _ in range(4)] == [True, True, False, False]
    now = 2.0
    assert [limit.allows() for _ in range(2)] == [True, False]
    assert (limit.take_suppressed(), limit.take_suppressed()) == (3, 0)
