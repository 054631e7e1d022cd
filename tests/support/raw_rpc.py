"""Makes RPCs with raw frames, for requests that no gRPC client would send."""

from contextlib import suppress
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
    """The response on a stream."""

    fields: dict[str, str]
    """Headers and trailers together."""
    body: bytes = b""
    blocks: int = 0
    """The number of header blocks: one for trailers-only responses, otherwise two."""
    error: Error | None = None
    """The code of RST_STREAM, or of GOAWAY if that arrived instead."""

    @property
    def http(self) -> str:
        """The HTTP status."""
        return self.fields.get(":status", "")

    @property
    def code(self) -> grpc.StatusCode | None:
        """The gRPC status code; None if there is none."""
        return CODES[int(self.fields["grpc-status"])] if "grpc-status" in self.fields else None

    @property
    def message(self) -> str:
        """The message of the gRPC status."""
        return unquote(self.fields.get("grpc-message", ""), errors="strict")

    @property
    def is_refused(self) -> bool:
        """Whether HTTP refused the request: without a gRPC status, or with the one that clients derive from HTTP's."""
        return self.code is None and (self.http.startswith("4") or self.error not in {None, Error.NO_ERROR})


def framed(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """Returns a message with its prefix, which may contain a wrong length."""
    return bytes([flag]) + (len(message) if length is None else length).to_bytes(4) + message


def headers(path: str = GET_MODEL, *more: tuple[str, str], **instead: str | None) -> bytes:
    """Returns the headers of an RPC. `instead` replaces values, or removes fields whose value is None."""
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
    """Makes an RPC whose body fits into the initial window. With `end=False`, the request is not half-closed."""
    with raw_connection(target) as connection:
        parts = [body[at : at + FRAME_BYTES] for at in range(0, len(body), FRAME_BYTES)]
        with suppress(ConnectionError):  # the server may close the connection before it has read everything
            connection.send(GREETING, *_header_frames(block, len(body) == 0 and end))
            for number, part in enumerate(parts, start=1):
                connection.send(frame(Kind.DATA, END_STREAM if end and number == len(parts) else 0, 1, part))
        return read_reply(Conversation(connection))


def read_reply(conversation: Conversation, stream: int = 1) -> Reply:
    """Reads up to the end of a stream or of the connection."""
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


def _header_frames(block: bytes, is_last: bool) -> list[bytes]:  # noqa: FBT001 - it becomes a flag of the frame
    """Returns HEADERS, and CONTINUATION if the block is long."""
    parts = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)] or [b""]
    kinds = [Kind.HEADERS] + [Kind.CONTINUATION] * (len(parts) - 1)
    flags = [0] * (len(parts) - 1) + [END_HEADERS]
    flags[0] |= END_STREAM if is_last else 0
    return [frame(kind, flag, 1, part) for kind, flag, part in zip(kinds, flags, parts, strict=True)]
