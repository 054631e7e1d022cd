"""The probes of both clients find out whether a server expects TLS."""

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from socket import create_server

import pytest
import trustme

from doherty._core._obstacle import TlsUse
from doherty._core._unreachable import Address
from doherty._probe import new_socket, probe, probe_async

SECONDS = 20.0


async def _probe_both(address: Address, seconds: float = SECONDS) -> list[TlsUse | None]:
    synchronous = await asyncio.to_thread(probe, new_socket(address), address, seconds)
    return [synchronous, await probe_async(address, seconds)]


async def _probe_server(
    tls: ssl.SSLContext | None, answer: Callable[[asyncio.StreamWriter], None]
) -> list[TlsUse | None]:
    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer(writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls) as server:
        return await _probe_both(Address(*server.sockets[0].getsockname()))


@pytest.mark.parametrize(
    ("callers", "expected"),
    [
        (ssl.CERT_NONE, TlsUse.ENCRYPTION),
        (ssl.CERT_OPTIONAL, TlsUse.ENCRYPTION),
        (ssl.CERT_REQUIRED, TlsUse.MUTUAL),
    ],
)
async def test_a_server_with_tls_is_recognized(callers: ssl.VerifyMode, expected: TlsUse) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = callers
    assert await _probe_server(context, lambda _: None) == [expected] * 2


@pytest.mark.parametrize("data", [b"", b"\0\0\0\4\0\0\0\0\0"], ids=["nothing", "HTTP/2"])
async def test_a_server_without_tls_is_recognized(data: bytes) -> None:
    assert await _probe_server(None, partial(asyncio.StreamWriter.write, data=data)) == [TlsUse.NONE] * 2


async def test_a_server_that_says_nothing_leaves_the_question_open() -> None:
    with create_server(("127.0.0.1", 0)) as listener:
        address = Address(*listener.getsockname())
        assert await _probe_both(address, 0.05) == [None, None]
    assert await _probe_both(address) == [None, None]
