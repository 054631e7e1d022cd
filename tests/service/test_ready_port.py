"""A server that accepts connections only while it is ready (`--listen-when-ready`)."""

import signal
import socket

import grpc
import pytest

from doherty_engine import EngineSetupError
from doherty_service.transport._port_watch import reserve
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, request

STEPS = 400
"""The number of tokens after which the engine dies."""


def _is_refused(server: ServerProcess) -> bool:
    host, _, port = server.target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_port_is_open_only_while_the_server_is_ready() -> None:
    options = ("tokens_per_second=100", f"die_after_steps={STEPS}", "load_seconds=3")
    flags = (part for option in options for part in ("-o", option))
    with (
        start_server("--engine", "synthetic", *flags, "--listen-when-ready") as server,
        connect(server.target) as caller,
    ):
        assert not _is_refused(server)
        with pytest.raises(EngineSetupError, match="Cannot listen on"):
            reserve(server.target)
        server.log.clear()
        with pytest.raises(grpc.RpcError):
            caller.generate(prompt="a", stopping={"max_output_tokens": 2 * STEPS, "ignore_eos": True})
        server.wait_for("port_closed")
        assert _is_refused(server)
        caller.wait_until(lambda _: True)  # connections that were accepted earlier are still served
        server.wait_for("ready")
        with connect(server.target) as newcomer:
            assert newcomer.generate(prompt="a", stopping={"max_output_tokens": 2}).text
        long_request = request(prompt="a", stopping={"max_output_tokens": STEPS // 2, "ignore_eos": True})
        stream = caller.stub.StreamGenerate(long_request, timeout=SECONDS)
        next(stream)
        server.log.clear()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("port_closed")
        assert _is_refused(server)
        *_, last = stream
        assert last.HasField("summary")
        assert stream.code() is grpc.StatusCode.OK
        assert server.wait() == 0
