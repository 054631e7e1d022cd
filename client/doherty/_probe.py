"""Asks a server whether it speaks TLS: gRPC only says that it ended the connection.

No key and no request is sent.
"""

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doherty._core._unreachable import Address


def speaks_tls(address: "Address", seconds: float) -> bool:
    """Tells whether a server speaks TLS. Connecting and the handshake may take `seconds` each."""
    try:
        with socket.create_connection(address, seconds) as connection, _context().wrap_socket(connection):
            return True
    except OSError as error:
        return _is_alert(error)


async def speaks_tls_async(address: "Address", seconds: float) -> bool:
    """Does the same on an event loop, in `seconds` together."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(*address, ssl=_context())
    except OSError as error:
        return _is_alert(error)
    writer.transport.abort()
    return True


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is sent, so it does not matter who the server is.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _is_alert(error: OSError) -> bool:
    """Whether a handshake failed because the server refused it, which takes TLS."""
    return isinstance(error, ssl.SSLError) and "ALERT" in str(error.reason)
