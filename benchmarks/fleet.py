"""Measures the throughput of 1, 2 and 3 servers: `PYTHONPATH=tests python benchmarks/fleet.py [--seconds 10]`.

The servers have the synthetic engine with 8 slots of 50 tokens per second, so the slots are the limit, not this
machine's CPU. There are as many callers as slots. Each requests one answer of 10, 40 or 100 tokens after the other.
They use the SDK with a list of addresses, the SDK with a DNS name, Envoy with the configuration in deploy/, or SMG with
OpenAI's client. If requests are spread unevenly, slots of one server are idle while requests wait at another.
"""

import argparse
import asyncio
import math
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
)
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from openai import AsyncOpenAI

from doherty import AsyncClient, GenerateOptions, TLSConfig
from proxies.running import Envoy, running
from support.certificates import Authority
from support.dns import serve_names
from support.ports import free_port
from support.server import ServerProcess, start_server
from support.smg import start_smg, write_synthetic_tokenizer

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
SLOTS, PACE = 8, 50
TOKENS = (10, 40, 100)
"""The numbers of tokens of an answer, one of which is drawn."""
WARM_SECONDS = 2.0
FLAGS = ("--engine", "synthetic", "-o", f"slots={SLOTS}", "-o", f"tokens_per_second={PACE}")

Ask = Callable[[str, int], Awaitable[float]]
"""Asks for an answer to a prompt of so many tokens, and returns when its first token came (by time.monotonic)."""


class Fleet:
    """Three servers. A measurement uses the first ones."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        """Starts the servers."""
        self.port = free_port()
        servers = [stack.enter_context(_start(host, self.port)) for host in HOSTS]
        self.addresses = [server.target for server in servers]
        self.doors = [str(server.wait_for("door_open")["address"]) for server in servers]
        self.folder = folder
        self.authority = Authority(folder)
        self.authority.renew("envoy")


def _start(host: str, port: int) -> AbstractContextManager[ServerProcess]:
    door = ("--door", "smg", "--door-listen", f"{host}:0")
    return start_server("--listen", f"{host}:{port}", *door, *FLAGS)


async def ask_sdk(client: AsyncClient, prompt: str, tokens: int) -> float:
    """Reads a stream of the SDK."""
    first = 0.0
    options = GenerateOptions(ignore_eos=True)
    async for _ in client.stream_generate(prompt, max_output_tokens=tokens, options=options, timeout=60):
        first = first or time.monotonic()
    return first


@asynccontextmanager
async def by_list(fleet: Fleet, size: int) -> AsyncIterator[Ask]:
    """The SDK with a list of addresses, which uses the one with the fewest requests in flight."""
    async with AsyncClient(fleet.addresses[:size]) as client:
        yield partial(ask_sdk, client)


@asynccontextmanager
async def by_dns(fleet: Fleet, size: int) -> AsyncIterator[Ask]:
    """The SDK with a name in DNS, which uses all addresses in turn."""
    with serve_names(*HOSTS[:size]) as names:
        async with AsyncClient(names.target(fleet.port)) as client:
            await client.wait_ready(timeout=30)
            yield partial(ask_sdk, client)


@asynccontextmanager
async def by_envoy(fleet: Fleet, size: int) -> AsyncIterator[Ask]:
    """The SDK through Envoy with TLS, which draws two servers and uses the one with fewer requests."""
    line = "              - endpoint: { address: { socket_address: { address: %s, port_value: %d } } }\n"
    first, second = (line % (host, fleet.port) for host in HOSTS[:2])
    lines = {first + second: "".join(line % (host, fleet.port) for host in HOSTS[:size])}
    with running(Envoy("envoy"), fleet.folder, fleet.addresses[:2], fleet.authority, more=lines) as envoy:
        async with AsyncClient(envoy.target, tls=TLSConfig(ca=fleet.authority.roots)) as client:
            await client.wait_ready(timeout=30)
            yield partial(ask_sdk, client)


@asynccontextmanager
async def by_smg(policy: str, fleet: Fleet, size: int) -> AsyncIterator[Ask]:
    """OpenAI's client through SMG."""
    flags = ("--policy", policy, "--tokenizer-path", str(write_synthetic_tokenizer(fleet.folder / "tokenizer")))
    with start_smg(fleet.doors[:size], *flags) as base:
        async with AsyncOpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=60) as client:

            async def ask(prompt: str, tokens: int) -> float:
                first = 0.0
                events = await client.completions.create(
                    model="synthetic", prompt=prompt, max_tokens=tokens, stream=True, extra_body={"ignore_eos": True}
                )
                async for _ in events:
                    first = first or time.monotonic()
                return first

            yield ask


WAYS: dict[str, Callable[[Fleet, int], AbstractAsyncContextManager[Ask]]] = {
    "SDK, list of addresses": by_list,
    "SDK, name in DNS": by_dns,
    "SDK, Envoy": by_envoy,
    "OpenAI's client, SMG, round_robin": partial(by_smg, "round_robin"),
    "OpenAI's client, SMG, cache_aware": partial(by_smg, "cache_aware"),
}


@dataclass(frozen=True)
class Answer:
    """When an answer was requested, began and ended (`time.monotonic`)."""

    tokens: int
    requested_at: float
    first: float
    last: float

    def tokens_within(self, begin: float, end: float) -> float:
        """Returns how many of its tokens arrived within a period."""
        shared = max(0.0, min(end, self.last) - max(begin, self.first))
        return self.tokens * shared / (self.last - self.first)


async def load(ask: Ask, callers: int, seconds: float) -> tuple[list[Answer], float, float]:
    """The answers to callers that make requests without pauses, and the period that counts."""
    begin = time.monotonic() + WARM_SECONDS
    end = begin + seconds
    answers: list[Answer] = []
    chance = random.Random(7)  # noqa: S311 - the same for all connections

    async def call() -> None:
        while (requested_at := time.monotonic()) < end:
            tokens = chance.choice(TOKENS)
            # No two prompts have a common prefix, so caches have no effect.
            first = await ask(f"{chance.randbytes(8).hex()} is a number.", tokens)
            answers.append(Answer(tokens, requested_at, first, time.monotonic()))

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
    return answers, begin, end


def quantile(values: list[float], share: float) -> float:
    """Returns the quantile by nearest rank."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


async def measure(name: str, fleet: Fleet, seconds: float) -> None:
    """Prints a row for each number of servers."""
    alone = 0.0
    for size in range(1, len(HOSTS) + 1):
        async with WAYS[name](fleet, size) as ask:
            answers, begin, end = await load(ask, size * SLOTS, seconds)
        rate = sum(answer.tokens_within(begin, end) for answer in answers) / (end - begin)
        alone = alone or rate
        firsts = [answer.first - answer.requested_at for answer in answers if begin <= answer.requested_at < end]
        capacity = rate / (size * SLOTS * PACE)
        figures = f"{rate:.0f} | {rate / alone:.2f} | {capacity:.0%}"
        figures += f" | {quantile(firsts, 0.5):.2f} | {quantile(firsts, 0.99):.2f}"
        print(f"| {name} | {size} | {figures} |", flush=True)


async def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description="What a fleet of 1, 2 and 3 servers carries.")
    parser.add_argument("--seconds", type=float, default=10.0, help="that count, for each connection and size")
    seconds = parser.parse_args().seconds
    head = ("servers", "tokens per second", "to one server", "of all slots", "p50 first token (s)", "p99 (s)")
    print(f"| connection | {' | '.join(head)} |\n{'|---' * 7}|")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fleet = Fleet(stack, Path(folder))
        for name in WAYS:
            await measure(name, fleet, seconds)


if __name__ == "__main__":
    asyncio.run(main())
