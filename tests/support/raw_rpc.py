"""RPCs on raw frames, for what no client of gRPC would send."""

from dataclasses import dataclass
from urllib.parse import unquote

import grpc

from support.conformance import Conversation, error_of
from support.http2 import END_HEADERS, END_STREAM, GREETING, Error, Kind, frame, literals, raw_connection

GENERATE = "/doherty.v1.GenerationService/Generate"
STREAM = "/doherty.v1.GenerationService/StreamGenerate"
MULTIPLEX = "/doherty.v1.GenerationService/MultiplexGenerate"
GET_MODEL = "/doherty.v1.GenerationService/GetModel"
CHECK = "/grpc.health.v1.Health/Check"
FRAME_BYTES = 16_000
CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass
class Reply:
    """What came back on a stream."""

    fields: dict[str, str]
    """Headers and trailers."""
    body: bytes = b""
    blocks: int = 0
    """Header blocks: one for trailers only, otherwise two."""
    error: Error | None = None
    """That of RST_STREAM, or of GOAWAY if it came instead."""

    @property
    def http(self) -> str:
        """The status of HTTP."""
        return self.fields.get(":status", "")

    @property
    def code(self) -> grpc.StatusCode | None:
        """The status of gRPC, None without one."""
        return CODES[int(self.fields["grpc-status"])] if "grpc-status" in self.fields else None

    @property
    def message(self) -> str:
        """The message of the status."""
        return unquote(self.fields.get("grpc-message", ""), errors="strict")

    @property
    def is_refused(self) -> bool:
        """Whether HTTP refuses the request: there is no status of gRPC, or one that a client makes of HTTP's."""
        return self.code is None and (self.http.startswith("4") or self.error not in {None, Error.NO_ERROR})


def framed(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A message with its prefix, which may tell another length."""
    return bytes([flag]) + (len(message) if length is None else length).to_bytes(4) + message


def headers(path: str = GET_MODEL, *more: tuple[str, str], **instead: str | None) -> bytes:
    """The headers of an RPC. `instead` replaces values of others, or leaves them out if it is None."""
    usual: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    by_name = {name.strip(":").replace("-", "_"): name for name in usual}
    usual |= {by_name[name]: value for name, value in instead.items()}
    return literals(*((name, value) for name, value in usual.items() if value is not None), *more)


def ask(target: str, block: bytes, body: bytes = framed(b""), *, end: bool = True) -> Reply:
    """Makes an RPC whose body fits into the first window. Without `end`, the request is not half-closed."""
    with raw_connection(target) as connection:
        connection.send(GREETING, *_header_frames(block, len(body) == 0 and end))
        parts = [body[at : at + FRAME_BYTES] for at in range(0, len(body), FRAME_BYTES)]
        for number, part in enumerate(parts, start=1):
            connection.send(frame(Kind.DATA, END_STREAM if end and number == len(parts) else 0, 1, part))
        return read_reply(Conversation(connection))


def read_reply(conversation: Conversation, stream: int = 1) -> Reply:
    """Reads up to the end of a stream, or of the connection."""
    reply = Reply({})
    for received in conversation.frames():
        if received.kind == Kind.GOAWAY:
            reply.error = error_of(received)
        if received.stream != stream:
            continue
        if received.kind == Kind.RST_STREAM:
            reply.error = error_of(received)
            break
        if received.kind == Kind.HEADERS:
            reply.blocks += 1
        elif received.kind == Kind.DATA:
            reply.body += received.payload
        if received.flags & END_STREAM:
            break
    reply.fields = conversation.headers.get(stream, {})
    return reply


def _header_frames(block: bytes, is_last: bool) -> list[bytes]:  # noqa: FBT001 - it is the flag of the frame
    """HEADERS and, where the block is long, CONTINUATION."""
    parts = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)] or [b""]
    kinds = [Kind.HEADERS] + [Kind.CONTINUATION] * (len(parts) - 1)
    flags = [0] * (len(parts) - 1) + [END_HEADERS]
    flags[0] |= END_STREAM if is_last else 0
    return [frame(kind, flag, 1, part) for kind, flag, part in zip(kinds, flags, parts, strict=True)]
