"""A wire that can be cut: a TCP proxy between a caller and a server."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER's way to say that closing a connection resets it."""


class Proxy:
    """Carries bytes both ways between whoever connects to `target` and a server, until it is told otherwise."""

    def __init__(self, server: str, tls: ssl.SSLContext | None = None) -> None:
        """Listens on a free port of loopback, in a thread of its own; with `tls` it ends the encryption there."""
        self._server = server.rpartition(":")[::2]
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._connect, "127.0.0.1", 0, ssl=tls), self._loop
        ).result()
        self.target = "{}:{}".format(*self._listener.sockets[0].getsockname())
        self.connections = 0
        """How many were made so far."""

    def stall(self) -> None:
        """Carries nothing more, and says nothing of it to either side: a cable that was pulled out."""
        self._run(self._flows.clear)

    def reset(self) -> int:
        """Ends all connections at once, with RST, and tells how many there were; new ones are let through."""
        count = len(self._writers) // 2
        self._run(self._reset)
        return count

    def finish(self) -> None:
        """Ends all connections as a program does that exits, with FIN."""
        self._run(self._finish)

    def close(self) -> None:
        """Ends everything."""
        self._run(self._listener.close)
        self._run(self._reset)
        asyncio.run_coroutine_threadsafe(self._left(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result()

    def _reset(self) -> None:
        for writer in self._writers:
            found: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):  # it was closed by its peer a moment ago
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()
        self._writers.clear()
        self._flows.set()

    def _finish(self) -> None:
        for writer in self._writers:
            with suppress(OSError):  # its peer was quicker
                writer.write_eof()

    async def _left(self) -> None:
        """Returns when all connections have ended."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._server)
        except OSError:  # there is no server
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        await asyncio.gather(self._carry(reader, server_writer), self._carry(server_reader, writer))
        self._writers -= {writer, server_writer}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, RuntimeError):  # it was ended by one side, or by us
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def proxy(server: str, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """A proxy to a server, for the block."""
    one = Proxy(server, tls)
    try:
        yield one
    finally:
        one.close()
