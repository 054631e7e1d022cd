"""A server whose port is closed exits and logs it."""

import signal
from pathlib import Path

import support
from support.markers import only_grpcio
from support.server import start_server

CLOSES_ITS_PORT = str(Path(support.__file__).parent / "closed_port")


@only_grpcio  # sitecustomize.py closes the port of grpc.aio's server
def test_a_server_whose_port_is_closed_exits() -> None:
    with start_server("--engine", "synthetic", PYTHONPATH=CLOSES_ITS_PORT) as server:
        server.process.send_signal(signal.SIGUSR1)
        lost = server.wait_for("transport_lost")
        assert lost["level"] == "error"
        assert server.target in str(lost["reason"])
        assert server.wait() == 1
