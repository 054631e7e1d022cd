"""Finds out whether a server expects TLS, because gRPC only reports that the server closed the connection.

This begins a handshake of TLS 1.2. The server's messages are then not encrypted (RFC 5246, 7.4), and show whether it
requests a certificate. If the server requires one, the handshake fails; if a certificate is optional, it succeeds.
"""

import asyncio
import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from doherty._core._obstacle import TlsUse

if TYPE_CHECKING:
    from doherty._core._unreachable import Address

_RECORD_HEADER: Final = 5
_MESSAGE_HEADER: Final = 4
_ALERT: Final = 21
_HANDSHAKE: Final = 22
"""Types of records."""

_CERTIFICATE_REQUEST: Final = 13
"""A type of handshake messages."""

_SHORTEST_WAIT: Final = 0.001

_LONGEST_ANSWER: Final = 1 << 17
"""More bytes than the certificates of a server have."""


def new_socket(address: "Address") -> socket.socket:
    """The socket for `probe`."""
    return socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)


def probe(connection: socket.socket, address: "Address", seconds: float) -> TlsUse | None:
    """Finds out within `seconds` what a server expects of TLS; returns None if it gave no answer."""
    handshake = _Handshake()
    ends_at = time.monotonic() + seconds
    with connection, suppress(TimeoutError):
        try:
            connection.settimeout(seconds)
            connection.connect(address)
            handshake.has_connected = True
            connection.sendall(handshake.advance(b""))
            while not handshake.has_ended:
                connection.settimeout(max(ends_at - time.monotonic(), _SHORTEST_WAIT))
                connection.sendall(handshake.advance(connection.recv(_LONGEST_ANSWER)))
        except TimeoutError:
            raise
        except OSError:
            handshake.has_ended = True
    return handshake.result()


async def probe_async(address: "Address", seconds: float) -> TlsUse | None:
    """Does the same on an event loop."""
    handshake = _Handshake()
    writer: asyncio.StreamWriter | None = None
    with suppress(TimeoutError):
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(*address)
                handshake.has_connected = True
                writer.write(handshake.advance(b""))
                while not handshake.has_ended:
                    writer.write(handshake.advance(await reader.read(_LONGEST_ANSWER)))
        except TimeoutError:
            raise
        except OSError:
            handshake.has_ended = True
        finally:
            if writer is not None:
                writer.transport.abort()
    return handshake.result()


class _Handshake:
    """A TLS 1.2 handshake without a certificate, and the messages of the server."""

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The certificate need not be checked, because the server is sent no data.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        self.has_connected = False
        self.has_ended = False
        """Whether it has succeeded or failed, or the server ended the connection."""
        self._has_begun = self._has_succeeded = False
        self._answer = b""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)

    def advance(self, received: bytes) -> bytes:
        """Takes received bytes (none at the beginning), and returns the bytes to send."""
        if not received and self._has_begun:
            self.has_ended = True
            return b""
        self._has_begun = True
        self._answer += received
        self._incoming.write(received)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.has_ended = len(self._answer) >= _LONGEST_ANSWER
        except ssl.SSLError:
            self.has_ended = True
        else:
            self.has_ended = self._has_succeeded = True
        return self._outgoing.read()

    def result(self) -> TlsUse | None:
        """Returns what the server expects; None if that is not known."""
        if not self.has_connected or not (self._answer or self.has_ended):
            return None
        if not self._answer or self._answer[0] not in (_HANDSHAKE, _ALERT):
            return TlsUse.NONE
        is_refused = self.has_ended and not self._has_succeeded
        return TlsUse.MUTUAL if is_refused and _CERTIFICATE_REQUEST in _messages(self._answer) else TlsUse.ENCRYPTION


def _messages(answer: bytes) -> set[int]:
    """The types of the whole handshake messages in a server's answer."""
    handshake = b""
    while len(answer) >= _RECORD_HEADER and answer[0] == _HANDSHAKE:
        end = _RECORD_HEADER + int.from_bytes(answer[3:5], "big")
        handshake += answer[_RECORD_HEADER:end]
        answer = answer[end:]
    types: set[int] = set()
    while len(handshake) >= _MESSAGE_HEADER:
        end = _MESSAGE_HEADER + int.from_bytes(handshake[1:4], "big")
        if len(handshake) < end:
            break
        types.add(handshake[0])
        handshake = handshake[end:]
    return types
