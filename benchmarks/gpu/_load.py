"""A load generator in a process of its own: orders come on standard input, records go to standard output."""

import asyncio
import sys

import uvloop

from _drivers import DRIVERS, serve
from _records import receive, send


async def main() -> None:
    """Carries out orders until there are no more."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    await serve(DRIVERS, lambda: receive(reader), lambda message: send(writer, message))


if __name__ == "__main__":
    uvloop.run(main())
