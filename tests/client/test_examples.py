import subprocess
import sys
from pathlib import Path

from doherty import Client
from support.server import start_server

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_two_streams_at_once_one_of_them_cancelled() -> None:
    with start_server("--engine", "synthetic", "-o", "tokens_per_second=50") as server:
        program = [sys.executable, str(EXAMPLES / "async_streams.py"), server.target]
        finished = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
        assert "40 tokens, the first after " in finished.stdout
        server.wait_for("request", rpc="StreamGenerate", code="CANCELLED")
        with Client(server.target) as client:
            assert client.latency().running == 0
