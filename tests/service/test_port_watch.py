"""A server whose port is closed is of no use, and says so."""

import signal
from pathlib import Path

import support
from support.server import start_server

CLOSES_ITS_PORT = str(Path(support.__file__).parent / "closed_port")


def test_a_server_that_does_not_listen_any_more_ends() -> None:
    with start_server("--engine", "synthetic", PYTHONPATH=CLOSES_ITS_PORT) as server:
        server.process.send_signal(signal.SIGUSR1)
        lost = server.wait_for("transport_lost")
        assert lost["level"] == "error"
        assert server.target in str(lost["reason"])
        assert server.wait() == 1
