"""Handshakes on the transport http2."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from doherty_service.http2._tls import TlsListener
from doherty_service.rpc import Turns
from doherty_service.security import CertificateFiles, Certificates
from support.certificates import Authority


class CountingTurns(Turns):
    """Counts the handshakes that have begun."""

    taken = 0

    async def take(self) -> None:
        CountingTurns.taken += 1
        await super().take()


@pytest.fixture
async def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, int]]:
    """Returns the address of a listener whose handshakes are counted."""
    monkeypatch.setattr("doherty_service.http2._tls.Turns", CountingTurns)
    CountingTurns.taken = 0
    authority = Authority(tmp_path)
    authority.renew("localhost")
    bound = socket.create_server(("127.0.0.1", 0))
    certificates = Certificates(CertificateFiles(authority.chain, authority.key))
    listener = TlsListener(bound, certificates, asyncio.Protocol)
    listener.start(timeout=60, has_room=lambda: True)
    yield bound.getsockname()
    listener.close()
    listener.abort()


def first_message() -> bytes:
    """Returns the first message of a client's handshake."""
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


async def read_reply(address: tuple[str, int], *parts: bytes) -> bytes:
    """Sends parts, one after the other, and returns the first byte of the reply; b"" if there is none."""
    reader, writer = await asyncio.open_connection(*address)
    for part in parts:
        writer.write(part)
        await writer.drain()
    reply = await reader.read(1)
    writer.close()
    return reply


async def test_a_handshake_begins_when_its_first_message_is_complete(address: tuple[str, int]) -> None:
    message = first_message()
    cuts = (1, 4, 5, len(message) - 1)
    writers = []
    for cut in cuts:
        _, writer = await asyncio.open_connection(*address)
        writer.write(message[:cut])
        writers.append(writer)
    for seen in (1, 2):  # the second reply shows that the server had time to see the parts
        assert await read_reply(address, message) == b"\x16"
        assert CountingTurns.taken == seen
    for cut, writer in zip(cuts, writers, strict=True):
        writer.write(message[cut:])
    while CountingTurns.taken < len(cuts) + 2:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.01)
    for writer in writers:
        writer.close()


@pytest.mark.parametrize(
    "sent", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 100, b"\x15\x03\x01\x00\x02\x01\x00"]
)
async def test_a_caller_that_sends_no_handshake_gets_its_answer_immediately(
    address: tuple[str, int], sent: bytes
) -> None:
    async with asyncio.timeout(30):  # the timeout of a handshake is 60 s
        assert await read_reply(address, sent) in {b"\x15", b""}  # an alert, or the end


async def test_a_caller_that_leaves_within_its_first_message_is_forgotten(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(first_message()[:100])
    writer.write_eof()
    async with asyncio.timeout(30):
        assert await reader.read(100) == b""
    writer.close()
