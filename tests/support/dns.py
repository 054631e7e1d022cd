"""A name server on loopback for tests of names whose addresses change."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_HEADER_BYTES = 12
_TYPE_A, _CLASS_IN = 1, 1
_ANSWER, _AUTHORITATIVE = 0x8000, 0x0400
_NAME_OF_QUESTION = 0xC00C
"""Points to the name in the question (RFC 1035, 4.1.4)."""


class NameServer:
    """Answers every question for an IPv4 address with the same addresses, and all others with none."""

    def __init__(self, sock: socket.socket, addresses: list[str]) -> None:
        self.addresses = addresses
        """May be changed at any time."""
        self.port: int = sock.getsockname()[1]
        self.questions = 0
        """How many questions for an IPv4 address were answered."""
        self._sock = sock

    def target(self, port: int) -> str:
        """A name of a server at `port`, for gRPC to resolve by this name server."""
        return f"dns://127.0.0.1:{self.port}/servers.test:{port}"

    def run(self) -> None:
        """Answers until an empty packet comes."""
        while True:
            packet, peer = self._sock.recvfrom(512)
            if not packet:
                return
            self._sock.sendto(self._answer(packet), peer)

    def _answer(self, packet: bytes) -> bytes:
        """RFC 1035, 4.1: the header and the question again, then a record for each address."""
        end = packet.index(0, _HEADER_BYTES) + 5  # the name's end, its type and its class
        kind, _ = struct.unpack("!HH", packet[end - 4 : end])
        addresses = self.addresses if kind == _TYPE_A else []
        self.questions += kind == _TYPE_A
        flags = struct.unpack("!H", packet[2:4])[0] | _ANSWER | _AUTHORITATIVE
        header = packet[:2] + struct.pack("!HHHHH", flags, 1, len(addresses), 0, 0)
        record = struct.pack("!HHHIH", _NAME_OF_QUESTION, _TYPE_A, _CLASS_IN, 0, 4)
        return header + packet[_HEADER_BYTES:end] + b"".join(record + socket.inet_aton(one) for one in addresses)


@contextmanager
def serve_names(*addresses: str) -> Iterator[NameServer]:
    """Runs a name server to the end of the block."""
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
