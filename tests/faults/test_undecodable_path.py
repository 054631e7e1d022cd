"""A method name that is not UTF-8 ends the accept loop of grpcio 1.84.0 to 1.85.3."""

from typing import Any

from support.http2 import END_HEADERS, END_STREAM, GREETING, Kind, frame, header_block, raw_connection
from support.server import ServerProcess
from support.wire import connect

SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 3}}


def test_new_connections_are_still_accepted(synthetic_server: ServerProcess) -> None:
    headers = header_block("/doherty.v1.GenerationService/\udcff")
    with raw_connection(synthetic_server.target) as attacker:
        attacker.send(GREETING, frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, headers))
        assert next(received for received in attacker.frames() if received.stream == 1).kind in (
            Kind.HEADERS,
            Kind.RST_STREAM,
        )
    with connect(synthetic_server.target) as newcomer:
        assert newcomer.generate(**SHORT).text
