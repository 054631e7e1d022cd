"""What streams leave behind in a client: `PYTHONPATH=tests python benchmarks/streams.py [STREAMS]`.

Runs streams one after the other with each client, in a process of its own: of three one is read to its end, one is
dropped after its first delta, and one is closed at once. Printed is the resident memory after a tenth of them and at
the end. Target: flat, which means within 5 %.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from doherty import AsyncClient, Client
from support.server import start_server

SHORT = 4
LONG = 2000


def resident_kilobytes() -> int:
    """Returns the memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0])


def synchronous(target: str, streams: int) -> None:
    """Runs streams with `Client`."""
    with Client(target) as client:
        for number in range(streams):
            match number % 3:
                case 0:
                    client.stream_generate("Hi", max_output_tokens=SHORT, idle_timeout=60).result()
                case 1:
                    for _ in client.stream_generate("Hi", max_output_tokens=LONG):
                        break
                case _:
                    client.stream_generate("Hi", max_output_tokens=LONG).close()
            tell(number, streams)


async def asynchronous(target: str, streams: int) -> None:
    """Runs streams with `AsyncClient`."""
    async with AsyncClient(target) as client:
        for number in range(streams):
            match number % 3:
                case 0:
                    await client.stream_generate("Hi", max_output_tokens=SHORT, idle_timeout=60).result()
                case 1:
                    async for _ in client.stream_generate("Hi", max_output_tokens=LONG):
                        break
                case _:
                    await client.stream_generate("Hi", max_output_tokens=LONG).close()
            tell(number, streams)


def tell(number: int, streams: int) -> None:
    """Prints the memory at the given numbers of streams."""
    if number + 1 in (streams // 10, streams):
        print(resident_kilobytes(), flush=True)


def main() -> None:
    """Measures both clients, and prints the table."""
    if len(sys.argv) > 2:  # noqa: PLR2004 - the process of one client
        kind, target, streams = sys.argv[1], sys.argv[2], int(sys.argv[3])
        if kind == "Client":
            synchronous(target, streams)
        else:
            asyncio.run(asynchronous(target, streams))
        return
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"| client | MB after {streams // 10:,} streams | MB after {streams:,} | ratio |\n|---|---|---|---|")
    with start_server("--engine", "synthetic", "-o", "tokens_per_second=2000") as server:
        for kind in ("Client", "AsyncClient"):
            command = [sys.executable, __file__, kind, server.target, str(streams)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            early, late = map(int, output.split())
            print(f"| `{kind}` | {early / 1000:.1f} | {late / 1000:.1f} | {late / early:.3f} |", flush=True)


if __name__ == "__main__":
    main()
