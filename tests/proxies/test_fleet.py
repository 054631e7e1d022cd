"""Servers drain, load and die while calls pass through every proxy. No call is lost."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from itertools import count
from threading import Event
from typing import Any

import grpc
import pytest

from doherty import AsyncClient, GenerateOptions, TLSConfig
from proxies.conftest import Fleet
from proxies.running import Running
from support.certificates import Authority
from support.multiplex import wait_until
from support.wire import SECONDS, connect, request

CALLERS = 2
"""The number of callers of each proxy. They call without pauses."""
STREAMS = 12
"""The number of streams through each proxy, which is enough for both servers to have some."""
TOKENS = 900
"""The tokens of long answers, which take nine seconds, longer than a draining server accepts new calls."""


@pytest.fixture(autouse=True)
def servers_for_the_next_test(fleet: Fleet) -> Iterator[None]:
    """Starts the servers that a test has ended, even if the test failed."""
    yield
    fleet.restart()


def call(proxy: Running, authority: Authority, name: str, stop: Event) -> Counter[str]:
    """Makes short calls with plain gRPC, which does not retry, and counts how they end."""
    ends: Counter[str] = Counter()
    with connect(proxy.target, authority.roots) as caller:
        for number in count():
            if stop.is_set():
                break
            asked = request(request_id=f"{name}-{number}", prompt="a", stopping={"max_output_tokens": 5})
            try:
                caller.stub.Generate(asked, timeout=SECONDS)
            except grpc.RpcError as error:
                ends[str(error)] += 1
            else:
                ends["OK"] += 1
    return ends


@contextmanager
def calling(proxies: list[Running], authority: Authority) -> Iterator[None]:
    """Calls through every proxy until the end of the block, and checks that no call fails."""
    stop = Event()
    with ThreadPoolExecutor(CALLERS * len(proxies)) as pool:
        names = [str(proxy.program) for proxy in proxies for _ in range(CALLERS)]
        callers = [
            pool.submit(call, proxy, authority, str(proxy.program), stop) for proxy in proxies for _ in range(CALLERS)
        ]
        try:
            yield
        finally:
            stop.set()
        ends = [(name, *caller.result()) for name, caller in zip(names, callers, strict=True)]
    assert ends == [(name, "OK") for name in names]


def test_one_server_drains_and_comes_back(fleet: Fleet, proxies: list[Running], authority: Authority) -> None:
    with calling(proxies, authority), ExitStack() as stack:
        long = request(prompt="a", stopping={"max_output_tokens": TOKENS, "ignore_eos": True})
        callers = [stack.enter_context(connect(proxy.target, authority.roots)) for proxy in proxies]
        streams = [caller.stub.StreamGenerate(long, timeout=SECONDS) for caller in callers for _ in range(STREAMS)]
        for stream in streams:
            next(stream)
        for proxy in proxies:
            proxy.take_out(fleet.addresses[0])
        assert fleet.servers[0].stop() == 0
        for stream in streams:
            *_, last = stream
            assert last.HasField("summary")
        server = fleet.start(0, "-o", "load_seconds=3")
        for proxy in proxies:
            proxy.take_in(fleet.addresses[0])
        missing = {str(proxy.program) for proxy in proxies}

        def all_of_them_call() -> bool:
            for line in server.read():
                missing.discard(str(line.get("request_id", "")).rpartition("-")[0])
            return not missing

        wait_until(all_of_them_call)


async def test_one_server_is_killed(fleet: Fleet, proxies: list[Running], authority: Authority) -> None:
    tls = TLSConfig(ca=authority.roots)
    long: dict[str, Any] = {"max_output_tokens": TOKENS, "options": GenerateOptions(ignore_eos=True)}
    async with AsyncExitStack() as stack:
        whole = await (await stack.enter_async_context(AsyncClient(fleet.addresses[0]))).generate("a", **long)
        clients = [await stack.enter_async_context(AsyncClient(proxy.target, tls=tls)) for proxy in proxies]
        streams = [[client.stream_generate("a", **long) for _ in range(STREAMS)] for client in clients]
        calls = [asyncio.create_task(client.generate("a", **long)) for client in clients for _ in range(2)]
        await asyncio.gather(*(anext(stream) for several in streams for stream in several))
        fleet.servers[1].stop(signal.SIGKILL)
        # A call that begins now cannot have reached the dead server, so the proxy can send it to the other one.
        with calling(proxies, authority):
            answers = await asyncio.gather(*(stream.result() for several in streams for stream in several), *calls)
        assert {answer.text for answer in answers} == {whole.text}
        for proxy, several in zip(proxies, streams, strict=True):
            assert 0 < sum(stream.resumed for stream in several) < STREAMS, proxy.program
