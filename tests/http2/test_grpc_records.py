"""Each RPC that a server accepts has one log line and counts once.

On both transports it has the same status, except for calls that a transport refuses itself.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from support.conformance import Conversation, complete_request, opened
from support.http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GREETING,
    LONG_HEADER_BLOCK,
    Kind,
    RawConnection,
    frame,
    raw_connection,
    reset,
)
from support.metrics import Scrape, scrape, scrape_until
from support.raw_rpc import GENERATE, GET_MODEL, MULTIPLEX, STREAM, framed, headers, read_reply
from support.server import ServerProcess
from support.wire import Caller, connect, request

Then = Callable[[RawConnection, Conversation], object]
PROMPT = framed(request(prompt="a", stopping={"max_output_tokens": 19_000, "ignore_eos": True}).SerializeToString())


def whole(path: str, *more: tuple[str, str], body: bytes = PROMPT, stream: int = 1) -> bytes:
    """Returns the frames of a request."""
    return opened(stream, headers(path, *more)) + frame(Kind.DATA, END_STREAM, stream, body)


def many(path: str) -> bytes:
    """Returns requests that are reset immediately, some of them before their message."""
    streams = range(1, 21, 4)
    return b"".join(
        whole(path, stream=stream) + reset(stream) + opened(stream + 2, headers(path)) + reset(stream + 2)
        for stream in streams
    )


def until_ponged(connection: RawConnection, conversation: Conversation) -> None:
    """Waits until the server has handled the frames, or has closed the connection."""
    asked = b"are you "
    with suppress(ConnectionError):
        connection.send(frame(Kind.PING, payload=asked))
    replies = ((received.kind, received.flags, received.payload) for received in conversation.frames())
    next((reply for reply in replies if reply == (Kind.PING, ACK, asked)), None)


def flood(connection: RawConnection, conversation: Conversation) -> None:
    until_ponged(connection, conversation)  # so the server has begun the call
    with suppress(ConnectionError):
        connection.send(LONG_HEADER_BLOCK)
    until_ponged(connection, conversation)


def until_ended(_: RawConnection, conversation: Conversation) -> None:
    read_reply(conversation)


def until_data(_: RawConnection, conversation: Conversation) -> None:
    next(received for received in conversation.frames() if received.kind == Kind.DATA)


def reset_at_data(connection: RawConnection, conversation: Conversation) -> None:
    until_data(connection, conversation)
    connection.send(reset(1))
    until_ponged(connection, conversation)


def leave(_: RawConnection, __: Conversation) -> None:
    """Closes the connection immediately."""


@dataclass(frozen=True)
class Rpcs:
    """What a caller does on a connection, and the records that the server must have."""

    sent: bytes
    then: Then
    rpc: str
    status: str
    count: int = 1
    refused: str = ""
    """The status on http2 if the transport refuses the call itself. grpcio does not tell us its own."""


LATE = ("grpc-timeout", "0n")
LARGE = framed(b"a", length=100 << 20)
CASES = {
    "resets at once": Rpcs(many(STREAM), until_ponged, "StreamGenerate", "CANCELLED", 10),
    "resets of unary RPCs at once": Rpcs(many(GENERATE), until_ponged, "Generate", "CANCELLED", 10),
    "reset of a multiplexed RPC": Rpcs(
        opened(1, headers(MULTIPLEX)) + reset(1), until_ponged, "MultiplexGenerate", "CANCELLED"
    ),
    "reset of an unknown method": Rpcs(
        complete_request(1, headers("/a/b")) + reset(1), until_ponged, "other", "CANCELLED"
    ),
    "reset in the middle": Rpcs(whole(STREAM), reset_at_data, "StreamGenerate", "CANCELLED"),
    "no time left": Rpcs(whole(STREAM, LATE), until_ended, "StreamGenerate", "DEADLINE_EXCEEDED"),
    "no time left, unary": Rpcs(whole(GENERATE, LATE), until_ended, "Generate", "DEADLINE_EXCEEDED"),
    "a deadline in the middle": Rpcs(
        whole(STREAM, ("grpc-timeout", "200m")), until_ended, "StreamGenerate", "DEADLINE_EXCEEDED"
    ),
    "an unknown method": Rpcs(complete_request(1, headers("/a/b")), until_ended, "other", "UNIMPLEMENTED"),
    "a bad message": Rpcs(whole(GENERATE, body=framed(b"\xff")), until_ended, "Generate", "INVALID_ARGUMENT"),
    "half a message": Rpcs(whole(GENERATE, body=framed(b"a", length=9)), until_ended, "Generate", "INVALID_ARGUMENT"),
    "no message": Rpcs(
        frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, headers(GENERATE)), until_ended, "Generate", "INVALID_ARGUMENT"
    ),
    "a large message": Rpcs(
        whole(GENERATE, body=LARGE), until_ended, "Generate", "CANCELLED", refused="RESOURCE_EXHAUSTED"
    ),
    "compression": Rpcs(
        whole(GENERATE, ("grpc-encoding", "gzip")), until_ended, "Generate", "CANCELLED", refused="UNIMPLEMENTED"
    ),
    "a bad timeout": Rpcs(
        whole(GENERATE, ("grpc-timeout", "a")), until_ended, "Generate", "CANCELLED", refused="INVALID_ARGUMENT"
    ),
    "bad metadata": Rpcs(
        whole(GENERATE, ("a-bin", "!")), until_ended, "Generate", "CANCELLED", refused="INVALID_ARGUMENT"
    ),
    "large metadata": Rpcs(
        whole(GENERATE, *[("a", "b" * 8050)] * 2), until_ended, "Generate", "CANCELLED", refused="RESOURCE_EXHAUSTED"
    ),
    "a flood": Rpcs(opened(1, headers(STREAM)), flood, "StreamGenerate", "CANCELLED", refused="RESOURCE_EXHAUSTED"),
    "a flood behind the request": Rpcs(
        opened(1, headers(STREAM)) + LONG_HEADER_BLOCK,
        until_ponged,
        "StreamGenerate",
        "CANCELLED",
        refused="RESOURCE_EXHAUSTED",
    ),
    "a lost connection": Rpcs(whole(STREAM), until_data, "StreamGenerate", "CANCELLED"),
    "a connection lost at once": Rpcs(opened(1, headers(STREAM)), leave, "StreamGenerate", "CANCELLED"),
    "an answer": Rpcs(whole(GET_MODEL, body=framed(b"")), until_ended, "GetModel", "OK"),
}


@pytest.mark.parametrize("rpcs", CASES.values(), ids=CASES)
def test_each_rpc_is_recorded_once(server: ServerProcess, http2_server: ServerProcess, rpcs: Rpcs) -> None:
    with connect(server.target) as caller:
        mark_log(server, caller)
        logged, before = len(server.log), counts(scrape(server))
        with raw_connection(server.target) as connection:
            with suppress(ConnectionError):  # the server may end the connection before it has read everything
                connection.send(GREETING, rpcs.sent)
            rpcs.then(connection, Conversation(connection))
        after = scrape_until(server, lambda now: (counts(now) - before).total() >= rpcs.count)
        mark_log(server, caller)
    status = rpcs.refused if rpcs.refused and server is http2_server else rpcs.status
    recorded = Counter({(rpcs.rpc, status): rpcs.count})
    assert counts(after) - before == recorded
    if rpcs.rpc == "other":
        recorded.clear()  # logged at the level DEBUG only
    lines = [line for line in server.log[logged:-1] if line["event"] == "request"]
    assert Counter((line["rpc"], line["code"]) for line in lines) == recorded


def mark_log(server: ServerProcess, caller: Caller) -> None:
    """Reads the log up to a new line, so that the lines of earlier RPCs are read, too."""
    label = f"mark {len(server.log)}"
    caller.generate(prompt="a", request_id=label, stopping={"max_output_tokens": 1})
    server.wait_for("request", request_id=label)


def counts(metrics: Scrape) -> Counter[tuple[str, str]]:
    """Returns the number of ended RPCs by name and status."""
    names = (
        {"rpc": labels["rpc"], "status": labels["status"], "key": ""}
        for labels in metrics.labels("doherty_requests_total")
    )
    return Counter(
        {(name["rpc"], name["status"]): int(metrics.value("doherty_requests_total", **name) or 0) for name in names}
    )
