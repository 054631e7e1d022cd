"""Measures how soon a server that is added to a DNS name gets its share of calls.

`PYTHONPATH=tests python benchmarks/scale_out.py [--age 10]`. A client makes 50 calls per second, without retries, to a
name with two servers. Then a third server starts, and its address is added to the name. Prints the server's share of
the calls in each following second, and the number of failed calls.
"""

import argparse
import asyncio
import time
from collections import Counter
from contextlib import ExitStack
from itertools import count

from doherty import AsyncClient, DohertyError
from support.dns import serve_names
from support.server import ServerProcess, start_server

HOSTS: tuple[str, ...] = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
CALLS_PER_SECOND = 50
BEFORE_SECONDS, AFTER_SECONDS = 25, 30


def start(stack: ExitStack, host: str, port: str, age: str) -> ServerProcess:
    """Starts a server whose answers take a quarter of a second."""
    flags = ("--engine", "synthetic", "-o", "tokens_per_second=40", "--max-connection-age", age)
    return stack.enter_context(start_server("--listen", f"{host}:{port}", *flags))


def answered(servers: list[ServerProcess]) -> list[int]:
    """Returns how many requests each server has answered since the last call."""
    return [Counter(str(line["event"]) for line in server.read())["request"] for server in servers]


class Load:
    """Makes calls at a constant rate, and counts those that failed."""

    def __init__(self, client: AsyncClient) -> None:
        """Uses `client` for the calls."""
        self.made = 0
        self.failed: Counter[str] = Counter()
        self._client = client

    async def run(self) -> None:
        """Makes calls until it is cancelled."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in count():
                await asyncio.sleep(begun + number / CALLS_PER_SECOND - time.monotonic())
                group.create_task(self._call())

    async def _call(self) -> None:
        self.made += 1
        try:
            await self._client.generate("Hi", max_output_tokens=10)
        except DohertyError as error:
            self.failed[str(error)] += 1


async def measure(age: str) -> None:
    """Prints the shares of the third server."""
    with ExitStack() as stack:
        servers = [start(stack, HOSTS[0], "0", age)]
        port = servers[0].target.rpartition(":")[2]
        servers.append(start(stack, HOSTS[1], port, age))
        names = stack.enter_context(serve_names(*HOSTS[:2]))
        async with AsyncClient(names.target(int(port)), retry=None) as client:
            load = Load(client)
            calling = asyncio.create_task(load.run())
            await asyncio.sleep(BEFORE_SECONDS)
            servers.append(await asyncio.to_thread(start, stack, HOSTS[2], port, age))
            names.addresses = list(HOSTS)
            answered(servers)
            print(f"connections of {age} s\n\n| second | calls | share of the third server |\n|---|---|---|")
            for second in range(1, AFTER_SECONDS + 1):
                await asyncio.sleep(1)
                counts = answered(servers)
                print(f"| {second} | {sum(counts)} | {counts[2] / sum(counts):.0%} |", flush=True)
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
        print(f"\n{load.made} calls, {load.failed.total()} failed {dict(load.failed) or ''}")


def main() -> None:
    """Runs one measurement."""
    parser = argparse.ArgumentParser(description="How soon a server added to a DNS name gets its share.")
    parser.add_argument("--age", default="10", help="seconds of --max-connection-age; 0 is no limit")
    asyncio.run(measure(parser.parse_args().age))


if __name__ == "__main__":
    main()
