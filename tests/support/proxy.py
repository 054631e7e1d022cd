"""A TCP proxy between a caller and a server, whose connections a test can interrupt."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_AT_ONCE = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing a connection resets it."""


class Proxy:
    """Forwards bytes in both directions between clients of `target` and a server."""

    def __init__(self, server: str, tls: ssl.SSLContext | None = None) -> None:
        """Listens on a free port of the loopback interface, in a thread of its own.

        With `tls`, it terminates the encryption.
        """
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
        """The number of connections so far."""

    def stall(self) -> None:
        """Stops forwarding without notifying either side, like an unplugged cable."""
        self._run(self._flows.clear)

    def reset(self) -> int:
        """Resets all connections with RST, and returns their number. New connections are accepted."""
        count = len(self._writers) // 2
        self._run(self._reset)
        return count

    def finish(self) -> None:
        """Closes all connections with FIN, like a program that exits."""
        self._run(self._finish)

    def close(self) -> None:
        """Closes everything."""
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
            connection: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):  # the peer has just closed it
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()
        self._writers.clear()
        self._flows.set()

    def _finish(self) -> None:
        for writer in self._writers:
            with suppress(OSError):  # the peer was faster
                writer.write_eof()

    async def _left(self) -> None:
        """Returns when all connections have ended."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._server)
        except OSError:  # the server is not running
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        await asyncio.gather(self._carry(reader, server_writer), self._carry(server_reader, writer))
        self._writers -= {writer, server_writer}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, RuntimeError):  # one of the sides, or we, closed it
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def proxy(server: str, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """Runs a proxy to a server until the end of the block."""
    running = Proxy(server, tls)
    try:
        yield running
    finally:
        running.close()
