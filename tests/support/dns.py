"""A name server on the loopback interface, for tests with names whose addresses change."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_HEADER_BYTES = 12
_TYPE_A, _CLASS_IN = 1, 1
_ANSWER, _AUTHORITATIVE = 0x8000, 0x0400
_NAME_OF_QUESTION = 0xC00C
"""A pointer to the name in the question (RFC 1035, 4.1.4)."""


class NameServer:
    """Answers every question for an IPv4 address with the same addresses, and all other questions with none."""

    def __init__(self, sock: socket.socket, addresses: list[str]) -> None:
        self.addresses = addresses
        """The addresses of the answers. A test may change them at any time."""
        self.port: int = sock.getsockname()[1]
        self.questions = 0
        """The number of answered questions for an IPv4 address."""
        self._sock = sock

    def target(self, port: int) -> str:
        """Returns a target for gRPC: a name, which this name server resolves, with the given port."""
        return f"dns://127.0.0.1:{self.port}/servers.test:{port}"

    def run(self) -> None:
        """Answers questions until an empty packet arrives."""
        while True:
            packet, peer = self._sock.recvfrom(512)
            if not packet:
                return
            self._sock.sendto(self._answer(packet), peer)

    def _answer(self, packet: bytes) -> bytes:
        """Returns the reply: the header and the question, and then a record for each address (RFC 1035, 4.1)."""
        end = packet.index(0, _HEADER_BYTES) + 5  # the end of the name, its type and its class
        kind, _ = struct.unpack("!HH", packet[end - 4 : end])
        addresses = self.addresses if kind == _TYPE_A else []
        self.questions += kind == _TYPE_A
        flags = struct.unpack("!H", packet[2:4])[0] | _ANSWER | _AUTHORITATIVE
        header = packet[:2] + struct.pack("!HHHHH", flags, 1, len(addresses), 0, 0)
        record = struct.pack("!HHHIH", _NAME_OF_QUESTION, _TYPE_A, _CLASS_IN, 0, 4)
        return (
            header + packet[_HEADER_BYTES:end] + b"".join(record + socket.inet_aton(address) for address in addresses)
        )


@contextmanager
def serve_names(*addresses: str) -> Iterator[NameServer]:
    """Runs a name server until the end of the block."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        server = NameServer(sock, list(addresses))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
                stop.sendto(b"", ("127.0.0.1", server.port))
            thread.join()
