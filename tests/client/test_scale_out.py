"""Several servers behind one name: bursts are spread over them, and running clients find added servers."""

import asyncio
from contextlib import ExitStack

from doherty import AsyncClient, GenerateOptions
from support.dns import serve_names
from support.ports import free_port
from support.server import ServerProcess, start_server

HOSTS: tuple[str, ...] = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
WINDOW = 60
"""The number of requests from which a server's share is computed."""
TRIES = 5
"""The client only estimates when gRPC is connected to all servers, and the estimate may be wrong on a busy machine."""


def _start(stack: ExitStack, host: str, port: int) -> ServerProcess:
    flags = ("--engine", "synthetic", "-o", "tokens_per_second=1000", "--max-connection-age", "1")
    return stack.enter_context(start_server("--listen", f"{host}:{port}", *flags))


def _answered(servers: list[ServerProcess]) -> list[int]:
    """Returns how many of the last WINDOW requests each server has answered.

    A request may be logged after its answer has arrived.
    """
    counts = [0] * len(servers)
    while sum(counts) < WINDOW:
        for number, server in enumerate(servers):
            counts[number] += sum(line["event"] == "request" for line in server.read())
    return counts


async def test_calls_are_spread_over_the_servers_behind_a_name_including_an_added_one() -> None:
    with ExitStack() as stack:
        port = free_port()
        servers = [_start(stack, host, port) for host in HOSTS[:2]]
        names = stack.enter_context(serve_names(*HOSTS[:2]))
        shares = [0]
        for _ in range(TRIES):
            async with AsyncClient(names.target(port)) as client:  # not connected yet
                await asyncio.gather(*(client.generate("Hi", max_output_tokens=1) for _ in range(WINDOW)))
            shares = _answered(servers)
            if min(shares) > WINDOW / 4:
                break
        assert min(shares) > WINDOW / 4
        # On a busy machine, a call may begin while its connection ends. gRPC reports it as not processed, and the SDK
        # retries it.
        async with AsyncClient(names.target(port)) as client:
            await client.wait_ready()
            outlasts_its_connection = client.stream_generate(
                "Hi", max_output_tokens=3000, options=GenerateOptions(ignore_eos=True)
            )
            servers.append(_start(stack, HOSTS[2], port))
            names.addresses = list(HOSTS)
            share = 0.0
            while not 0.25 <= share <= 0.40:
                for server in servers:
                    server.read()
                for _ in range(WINDOW):
                    await client.generate("Hi", max_output_tokens=1)
                counts = _answered(servers)
                share = counts[2] / sum(counts)
            assert (await outlasts_its_connection.result()).usage.output_tokens == 3000
