"""How RPCs and connections start and end on both transports."""

import signal
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.generation_service_pb2 import CountTokensRequest
from support.certificates import Authority
from support.conformance import Conversation, complete_request, error_of, opened
from support.http2 import (
    END_HEADERS,
    END_STREAM,
    GREETING,
    Error,
    Kind,
    Setting,
    frame,
    raw_connection,
    reset,
    window_update,
)
from support.raw_rpc import GET_MODEL, MULTIPLEX, STREAM, Reply, framed, headers, read_reply
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Caller, connect, failure_of, request

LARGE = 16 << 20
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 19_000, "ignore_eos": True}}
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture
def caller(server: ServerProcess) -> Iterator[Caller]:
    with connect(server.target) as caller:
        yield caller


def is_idle(caller: Caller) -> None:
    """Waits until no request is left."""
    caller.wait_until(lambda now: now.running == 0 and now.queued == 0)


def stream_of(tokens: int) -> bytes:
    """Returns the frames of a StreamGenerate on stream 1."""
    asked_for = request(prompt="a", stopping={"max_output_tokens": tokens, "ignore_eos": True})
    body = framed(asked_for.SerializeToString())
    return frame(Kind.HEADERS, END_HEADERS, 1, headers(STREAM)) + frame(Kind.DATA, END_STREAM, 1, body)


def is_complete(reply: Reply) -> bool:
    """Whether the reply is a complete stream with its summary."""
    at, last = 0, b""
    while at < len(reply.body):
        length = int.from_bytes(reply.body[at + 1 : at + 5])
        last, at = reply.body[at + 5 : at + 5 + length], at + 5 + length
    return reply.code is grpc.StatusCode.OK and wire.StreamGenerateResponse.FromString(last).HasField("summary")


def test_nothing_remains_of_a_cancelled_stream(server: ServerProcess, caller: Caller) -> None:
    stream: Any = caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS)
    next(stream)
    stream.cancel()
    is_idle(caller)
    with raw_connection(server.target) as connection:
        connection.send(GREETING, stream_of(19_000))
        next(received for received in connection.frames() if received.kind == Kind.DATA)
        connection.send(reset(1))
        is_idle(caller)


def test_nothing_remains_of_a_caller_that_has_left(server: ServerProcess, caller: Caller) -> None:
    with raw_connection(server.target) as connection:
        connection.send(GREETING, stream_of(19_000))
        next(received for received in connection.frames() if received.kind == Kind.DATA)
    is_idle(caller)


def test_a_deadline_ends_a_running_stream(caller: Caller) -> None:
    stream: Any = caller.stub.StreamGenerate(request(**ENDLESS), timeout=0.3)
    with pytest.raises(grpc.RpcError) as error:
        list(stream)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    is_idle(caller)


def test_a_connection_can_have_the_maximum_number_of_streams(server: ServerProcess) -> None:
    with raw_connection(server.target) as connection:
        connection.send(GREETING, window_update(0, LARGE))
        conversation = Conversation(connection)
        announced = next(conversation.frames()).payload
        pairs = [announced[at : at + 6] for at in range(0, len(announced), 6)]
        most = {int.from_bytes(pair[:2]): int.from_bytes(pair[2:]) for pair in pairs}[Setting.MAX_CONCURRENT_STREAMS]
        streams = range(1, 2 * most + 1, 2)
        connection.send(*(opened(stream, headers(GET_MODEL)) for stream in streams))
        connection.send(*(frame(Kind.DATA, END_STREAM, stream, framed(b"")) for stream in streams))
        ended = set[int]()
        for received in conversation.frames():
            assert received.kind != Kind.RST_STREAM or error_of(received) is Error.NO_ERROR
            if received.kind == Kind.HEADERS and received.flags & END_STREAM:
                ended.add(received.stream)
                if len(ended) == most:
                    break
        assert {header["grpc-status"] for header in conversation.headers.values()} == {"0"}


def test_messages_of_megabytes_pass_in_both_directions(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.target, UNLIMITED) as channel:
        caller = Caller(channel)
        with ThreadPoolExecutor(2) as pool:
            up = pool.submit(
                failure_of, lambda: caller.stub.CountTokens(CountTokensRequest(prompt="a" * LARGE), timeout=SECONDS)
            )
            whole = {"prompt": "a", "stopping": {"max_output_tokens": 4000, "ignore_eos": True}}
            down = pool.submit(lambda: caller.generate(**whole, output={"top_logprobs": 20}))
            assert f"has {LARGE} characters" in up.result().message
            assert down.result().ByteSize() > 1_000_000


def test_a_multiplexed_rpc_continues_after_its_caller_half_closed_it(server: ServerProcess) -> None:
    message = wire.MultiplexGenerateRequest()
    message.starts.add(id=1, request=request(prompt="a", stopping={"max_output_tokens": 3, "ignore_eos": True}))
    with raw_connection(server.target) as connection:
        body = framed(message.SerializeToString())
        connection.send(GREETING, opened(1, headers(MULTIPLEX)), frame(Kind.DATA, END_STREAM, 1, body))
        reply = read_reply(Conversation(connection))
    assert (reply.code, reply.blocks) == (grpc.StatusCode.OK, 2)


@pytest.fixture(params=["grpcio", "http2"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_old_connections_and_a_drain_let_streams_finish(transport: str) -> None:
    flags = ("--engine", "synthetic", "-o", "tokens_per_second=50", "--max-connection-age", "1")
    with start_server(*flags, "--transport", transport) as server:
        with raw_connection(server.target) as connection:
            connection.send(GREETING, stream_of(200))
            conversation = Conversation(connection)
            frames = conversation.frames()
            goaway = next(received for received in frames if received.kind == Kind.GOAWAY)
            assert error_of(goaway) is Error.NO_ERROR
            assert int.from_bytes(goaway.payload[:4]) >= 1
            assert is_complete(read_reply(conversation))
            assert all(
                received.kind != Kind.GOAWAY or error_of(received) is Error.NO_ERROR
                for received in conversation.frames()
            )
        with raw_connection(server.target) as connection:
            connection.send(GREETING, stream_of(200))
            conversation = Conversation(connection)
            next(received for received in conversation.frames() if received.kind == Kind.DATA)
            server.process.send_signal(signal.SIGTERM)
            reply = read_reply(conversation)
            assert is_complete(reply)
            list(conversation.frames())
        assert server.wait() == 0
        codes = [line["code"] for line in (*server.log, *server.read()) if line["event"] == "request"]
        assert codes == ["OK", "OK"]
    if transport == "http2":  # the first one has the highest number: calls on their way are accepted (section 6.8)
        assert {error_of(received) for received in conversation.goaways} == {Error.NO_ERROR}
        assert int.from_bytes(conversation.goaways[0].payload[:4]) == (1 << 31) - 1
        assert int.from_bytes(conversation.goaways[-1].payload[:4]) == 1


def agreed_protocol(target: str, context: ssl.SSLContext) -> str | None:
    """Returns the protocol that a TLS handshake agrees on; None without a handshake or an answer to a request."""
    host, port = target.rsplit(":", 1)
    try:
        with (
            socket.create_connection((host, int(port)), timeout=SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as encrypted,
        ):
            encrypted.sendall(GREETING + complete_request())
            return encrypted.selected_alpn_protocol() if encrypted.recv(1) else None
    except TimeoutError:
        raise
    except OSError:
        return None


def test_tls_requires_http2_and_a_client_certificate(transport: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.renew("server")
    (tmp_path / "client.pem").write_bytes(b"".join(reversed(authority.issue("client"))))
    flags = (*authority.flags, "--tls-client-ca", str(authority.roots_file), "--transport", transport)
    with start_server("--engine", "synthetic", *flags) as server:
        context = ssl.create_default_context(cadata=authority.roots.decode())
        context.set_alpn_protocols(["h2"])
        assert agreed_protocol(server.target, context) is None  # no certificate
        context.load_cert_chain(tmp_path / "client.pem")
        assert agreed_protocol(server.target, context) == "h2"
        context.set_alpn_protocols(["http/1.1"])
        assert agreed_protocol(server.target, context) is None
        without = ssl.create_default_context(cadata=authority.roots.decode())
        without.load_cert_chain(tmp_path / "client.pem")
        assert agreed_protocol(server.target, without) is None
        with raw_connection(server.target) as connection:  # plaintext
            connection.send(GREETING)
            connection.until_closed()
        context.set_alpn_protocols(["h2"])
        assert agreed_protocol(server.target, context) == "h2"


def test_tls_to_a_plaintext_port_fails_immediately(server: ServerProcess) -> None:
    context = ssl.create_default_context()
    assert agreed_protocol(server.target, context) is None
