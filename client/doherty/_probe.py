"""Asks a server what it expects of TLS: gRPC only says that it ended the connection.

Only the first message of a TLS 1.2 handshake is sent. The server's answer is not encrypted (RFC 5246, 7.4), and shows
whether it requests a certificate. With TLS 1.3, this would be encrypted.
"""

import asyncio
import socket
import ssl
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
_SERVER_HELLO_DONE: Final = 14
"""Types of handshake messages."""

_LONGEST_ANSWER: Final = 1 << 17
"""More bytes than the certificates of a server have."""


def new_socket(address: "Address") -> socket.socket:
    """The socket for `probe`."""
    return socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)


def probe(connection: socket.socket, address: "Address", seconds: float) -> TlsUse:
    """Finds out what a server expects of TLS. It may take `seconds` to connect, and for each part of its answer."""
    answer = b""
    with connection:
        try:
            connection.settimeout(seconds)
            connection.connect(address)
            connection.sendall(_first_message())
            while not _is_complete(answer) and (received := connection.recv(_LONGEST_ANSWER)):
                answer += received
        except OSError:
            pass  # What was received counts.
    return _read(answer)


async def probe_async(address: "Address", seconds: float) -> TlsUse:
    """Does the same on an event loop, in `seconds` together."""
    answer = b""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(_first_message())
            while not _is_complete(answer) and (received := await reader.read(_LONGEST_ANSWER)):
                answer += received
    except OSError:
        pass  # What was received counts.
    finally:
        if writer is not None:
            writer.transport.abort()
    return _read(answer)


def _first_message() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The handshake ends before certificates matter.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake needs an answer")


def _is_complete(answer: bytes) -> bool:
    """Whether no more of a server's answer has to be read."""
    if len(answer) >= _LONGEST_ANSWER or (answer and answer[0] != _HANDSHAKE):
        return True
    return _SERVER_HELLO_DONE in _messages(answer)


def _read(answer: bytes) -> TlsUse:
    if not answer or answer[0] not in (_HANDSHAKE, _ALERT):
        return TlsUse.NONE
    return TlsUse.MUTUAL if _CERTIFICATE_REQUEST in _messages(answer) else TlsUse.ENCRYPTION


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
