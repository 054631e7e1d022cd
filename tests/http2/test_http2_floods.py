"""Floods: callers that are served at the same time are not affected, and no memory is kept for attackers."""

import resource
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import grpc
import pytest

from support.http2_floods import FLOODS, Flood
from support.memory import peak_bytes
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Caller, connect, request

ADDRESS_SPACE = 4 << 30
SHARE = 0.1
MAX_BYTES = 64 << 20
"""The maximum growth of the memory's peak in all floods together."""
SHORT: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 3}}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    flags = ("-o", "tokens_per_second=100", "-o", "context_tokens=60000", "--transport", "http2")
    with start_server("--engine", "synthetic", *flags) as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        yield server
        errors = [line for line in server.read() if line.get("level") == "error" or "Traceback" in str(line)]
        assert not errors, "\n".join(map(str, errors))
        assert server.stop() == 0


@pytest.fixture(scope="module")
def caller(server: ServerProcess) -> Iterator[Caller]:
    with connect(server.target) as caller:
        yield caller


@pytest.fixture(scope="module")
def first_peak(server: ServerProcess, caller: Caller) -> int:
    caller.generate(**SHORT)
    return peak_bytes(server)


@contextmanager
def streaming(caller: Caller) -> Iterator[threading.Semaphore]:
    """Runs a stream during the flood; each of its messages releases the semaphore."""
    arrived = threading.Semaphore(0)
    endless: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 50_000, "ignore_eos": True}}
    stream: Any = caller.stub.StreamGenerate(request(**endless), timeout=2 * SECONDS)
    next(stream)

    def read() -> None:
        with suppress(grpc.RpcError):  # the stream has ended or failed, and no further message arrives
            for _ in stream:
                arrived.release()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield arrived
        assert arrived.acquire(timeout=SECONDS)
    finally:
        stream.cancel()
        reader.join()


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_does_not_affect_other_callers(
    server: ServerProcess, caller: Caller, first_peak: int, flood: Flood
) -> None:
    with ExitStack() as held:
        arrived = held.enter_context(streaming(caller))
        attacker = threading.Thread(target=flood.run, args=(server.target, held, SHARE))
        attacker.start()
        while attacker.is_alive():
            caller.generate(**SHORT)
        attacker.join()
        while arrived.acquire(blocking=False):
            pass  # the messages that arrived before the end of the flood
        caller.generate(**SHORT)
    assert peak_bytes(server) - first_peak < MAX_BYTES
    caller.wait_until(lambda now: now.running == 0 and now.queued == 0)
