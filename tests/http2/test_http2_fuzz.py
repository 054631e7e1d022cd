"""A few of the inputs of benchmarks/fuzz/http2.py."""

from support.fuzz.http2 import STREAMS, Findings, send_frames, send_streams
from support.server import ServerProcess

CONNECTIONS = 10


def test_random_frames_do_not_break_the_server(http2_server: ServerProcess) -> None:
    findings = Findings()
    for number in range(CONNECTIONS):
        findings.add(send_streams(http2_server.target, f"test-{number}"))
        for other in range(CONNECTIONS):
            findings.add(send_frames(http2_server.target, f"test-{number}-{other}"))
    assert not findings.failures
    assert findings.outcomes.total() >= CONNECTIONS * STREAMS
    assert findings.outcomes["OK"] > CONNECTIONS
