"""Compressed messages are refused, because they may expand to a thousand times their size."""

import zlib

import pytest
from hpack import Decoder

from support.http2 import END_HEADERS, END_STREAM, GREETING, Kind, frame, header_block, raw_connection
from support.memory import peak_bytes
from support.server import ServerProcess
from support.wire import connect

LARGE = 60_000_000
FRAME = 16_000


def bomb() -> bytes:
    """Returns zeros, compressed with gzip, in the frames of a message."""
    packer = zlib.compressobj(9, wbits=31)
    data = packer.compress(bytes(LARGE)) + packer.flush()
    assert len(data) < 65_000  # the amount that can be sent before the window must be opened
    return b"\1" + len(data).to_bytes(4) + data


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", "/doherty.v1.GenerationService/Generate"])
def test_nothing_is_decompressed(synthetic_server: ServerProcess, method: str) -> None:
    message = bomb()
    parts = [message[at : at + FRAME] for at in range(0, len(message), FRAME)]
    with connect(synthetic_server.target):  # allocates memory that later calls reuse
        before = peak_bytes(synthetic_server)
    for _ in range(4):
        with raw_connection(synthetic_server.target) as attacker:
            attacker.send(
                GREETING, frame(Kind.HEADERS, END_HEADERS, 1, header_block(method, ("grpc-encoding", "gzip")))
            )
            attacker.send(*(frame(Kind.DATA, 0, 1, part) for part in parts), frame(Kind.DATA, END_STREAM, 1))
            answer = next(received for received in attacker.frames() if received.stream == 1)
            assert answer.kind == Kind.HEADERS
            assert b"12" in [
                value for name, value in Decoder().decode(answer.payload, raw=True) if name == b"grpc-status"
            ]  # UNIMPLEMENTED
    assert peak_bytes(synthetic_server) - before < LARGE / 2
