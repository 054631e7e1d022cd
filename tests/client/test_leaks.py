"""What remains after many streams, and after a client is closed."""

import asyncio
import gc
import threading
from collections import Counter
from pathlib import Path

import pytest

from doherty import AsyncClient, ClientClosedError, DeadlineExceededError, UnavailableError
from support.proxy import proxy
from support.server import ServerProcess
from support.twins import ENDLESS, Kind, Twin, open_twin


def _objects() -> Counter[str]:
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects())


async def _streams(twin: Twin, times: int) -> None:
    for _ in range(times):
        await twin.stream("Hi", max_output_tokens=2, idle_timeout=30).result()
        left = twin.stream("Hi", **ENDLESS)
        await left.next()
        del left
        await twin.stream("Hi", **ENDLESS).close()


async def test_streams_leave_no_objects_behind(twin: Twin) -> None:
    await _streams(twin, 20)
    before = _objects()
    await _streams(twin, 100)
    # gRPC handles a cancellation a little later.
    while any(count > 50 for count in (_objects() - before).values()):
        await twin("latency")


def _is_socket(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except FileNotFoundError:  # another thread has closed it
        return False


def _sockets() -> int:
    return sum(map(_is_socket, Path("/proc/self/fd").iterdir()))


async def test_nothing_remains_of_a_client_after_failures_and_cancellations(
    kind: Kind, synthetic_server: ServerProcess
) -> None:
    threads, tasks, sockets = set(threading.enumerate()), asyncio.all_tasks(), _sockets()
    with proxy(synthetic_server.target) as wire:
        async with open_twin(kind, [wire.target, "127.0.0.1:1"]) as twin:
            for _ in range(4):
                stream = twin.stream("Hi", max_output_tokens=20, idle_timeout=30)
                await stream.next()
                wire.reset()
                assert (await stream.result()).usage.output_tokens == 20
            await twin("health")
            for limit in ({"first_token_timeout": 0.001, "timeout": 5}, {"timeout": 0.1}):
                with pytest.raises((DeadlineExceededError, UnavailableError)):  # the second target does not exist
                    await twin.stream("Hi", **limit, **ENDLESS).result()
            kept = twin.stream("Hi", idle_timeout=60, **ENDLESS)
            await kept.next()
    for thread in set(threading.enumerate()) - threads:
        if not thread.name.startswith("asyncio_"):  # runs the synchronous client in this test
            await asyncio.to_thread(thread.join, 30)
            assert not thread.is_alive(), thread
    while asyncio.all_tasks() - tasks or _sockets() > sockets:  # noqa: ASYNC110 - gRPC has no event for this
        await asyncio.sleep(0.01)


def _threads() -> set[threading.Thread]:
    """Returns the threads, except those that run the synchronous client in these tests."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def test_everything_has_ended_when_close_returns(kind: Kind, synthetic_server: ServerProcess) -> None:
    threads, tasks = _threads(), asyncio.all_tasks()
    async with open_twin(kind, synthetic_server.target) as twin:
        left = twin.stream("Hi", idle_timeout=60, **ENDLESS)
        for _ in range(2):  # the timeout begins with the first delta
            await left.next()
        dropped = twin.stream("Hi", **ENDLESS)
        await dropped.next()
        reading = asyncio.create_task(twin.stream("Hi", idle_timeout=60, **ENDLESS).rest())
        waiting = asyncio.create_task(twin.generate("Hi", **ENDLESS))
        while (await twin("latency")).running < 4:
            pass
        if kind == "Client":
            while len(_threads() - threads) < 3:  # gRPC's thread, and one thread per timeout
                await twin("latency")
        del dropped
        await twin("close")
        assert not asyncio.all_tasks() - tasks - {reading, waiting}
        if kind == "Client":  # gRPC has one thread for all channels of grpc.aio
            assert not _threads() - threads
    for task in (reading, waiting):
        with pytest.raises(ClientClosedError):
            await task
    with pytest.raises(ClientClosedError):
        await left.next()


async def test_close_waits_for_the_thread_that_fetches_a_key(synthetic_server: ServerProcess) -> None:
    begun, goes_on, ended = (threading.Event() for _ in range(3))

    def key() -> str:
        begun.set()
        goes_on.wait(30)
        ended.set()
        return "secret"

    async with AsyncClient(synthetic_server.target, api_key=key) as client:
        calling = asyncio.create_task(client.generate("Hi"))
        await asyncio.to_thread(begun.wait)
        closing = asyncio.create_task(client.close())
        with pytest.raises(ClientClosedError):
            await calling
        assert not closing.done()
        goes_on.set()
        await closing
        assert ended.is_set()


async def test_calls_share_a_probe_for_tls_which_ends_with_the_client(kind: Kind) -> None:
    probes: list[asyncio.StreamReader] = []
    is_probed = asyncio.Event()

    async def end_plaintext(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.read(1)) != b"P":  # the connection preface of HTTP/2
            probes.append(reader)
            is_probed.set()
            await reader.read()
        writer.close()

    async with await asyncio.start_server(end_plaintext, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        async with open_twin(kind, f"{host}:{port}") as twin:
            calls = [asyncio.create_task(twin.generate("Hi")) for _ in range(4)]
            await is_probed.wait()
            await twin("close")
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {ClientClosedError}, results
        [probe] = probes
        await probe.read()
