"""A TCP proxy whose connections can be cut."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that lets close() reset a connection, as the other end sees it when a machine or a firewall goes."""


class Cutter:
    """Its address, and what cuts the connections through it."""

    def __init__(self, target: str) -> None:
        """Leads to `target`."""
        self.target = ""
        self._host, _, self._port = target.rpartition(":")
        self._writers: set[asyncio.StreamWriter] = set()
        self.leading: set[asyncio.Task[object]] = set()
        """A task for each connection."""

    def cut(self) -> int:
        """Resets all connections, and tells how many there were; new ones are let through."""
        count = len(self._writers) // 2
        for writer in self._writers:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self._writers.clear()
        return count

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Leads one connection, both ways, until either end closes it."""
        if (task := asyncio.current_task()) is not None:
            self.leading.add(task)
            task.add_done_callback(self.leading.discard)
        try:
            there, back = await asyncio.open_connection(self._host, int(self._port))
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._writers |= ends
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
        self._writers -= ends


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def cutter(target: str) -> AsyncIterator[Cutter]:
    """Runs a proxy to `target` on this event loop, up to the end of the block."""
    leading = Cutter(target)
    server = await asyncio.start_server(leading.lead, "127.0.0.1", 0)
    leading.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield leading
    finally:
        server.close()
        leading.cut()
        await asyncio.gather(*leading.leading, return_exceptions=True)
