"""Messages on MultiplexGenerate with very many small requests and cancels."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty.v1.generation_service_pb2 import MultiplexGenerateRequest, MultiplexGenerateResponse, MultiplexStart
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from support.memory import peak_bytes, resident_bytes
from support.multiplex import Rpc, failure_in, opened, start
from support.security import add_key, bearer
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, failure_of

METHOD = "/doherty.v1.GenerationService/MultiplexGenerate"
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 8000, "ignore_eos": True}}
SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def guarded(keys: Path) -> Iterator[ServerProcess]:
    """Runs a server whose RPCs have room for two requests."""
    add_key(keys, "first")
    flags = ("--keys-file", str(keys), "--max-concurrent-streams", "2", "-o", "slots=8")
    with start_server("--engine", "synthetic", *flags) as server:
        yield server


@pytest.fixture
def rpc(guarded: ServerProcess, keys: Path, request: pytest.FixtureRequest) -> Iterator[Rpc]:
    """Opens an RPC with a key whose limit of concurrent requests is the parameter of the test."""
    token = add_key(keys, request.node.name.replace("[", "-").rstrip("]")[-40:], max_concurrent=request.param)
    with (
        grpc.insecure_channel(guarded.target) as channel,
        opened(GenerationServiceStub(channel), metadata=bearer(token)) as opened_rpc,
    ):
        yield opened_rpc


def flood(number: int) -> bytes:
    """Returns a message with this many empty requests and their cancels."""
    return MultiplexGenerateRequest(
        starts=[MultiplexStart(id=identifier) for identifier in range(1, number + 1)], cancels=range(1, number + 1)
    ).SerializeToString()


@pytest.mark.parametrize(("number", "size"), [(94_000, 0.85), (178_000, 1.6)])
def test_too_many_entries_are_refused_before_parsing(
    guarded: ServerProcess, keys: Path, number: int, size: float
) -> None:
    message = flood(number)
    assert len(message) == pytest.approx(size * 1e6, rel=0.06)
    metadata = bearer(add_key(keys, f"flood-{number}", max_concurrent=1))
    with grpc.insecure_channel(guarded.target) as channel:
        call: Any = channel.stream_stream(METHOD)
        # The first call allocates memory that later ones reuse.
        failure_of(lambda: list(call(iter([b"\xff"]), timeout=SECONDS, metadata=metadata)))
        before = peak_bytes(guarded)
        failure = failure_of(lambda: list(call(iter([message]), timeout=SECONDS, metadata=metadata)))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most" in failure.message
    assert peak_bytes(guarded) - before < 32 * MEBIBYTE


def test_the_largest_allowed_message_is_answered(guarded: ServerProcess, keys: Path) -> None:
    metadata = bearer(add_key(keys, "answered", max_concurrent=1))
    message = flood(8_000)
    with grpc.insecure_channel(guarded.target) as channel:
        call: Any = channel.stream_stream(METHOD, response_deserializer=MultiplexGenerateResponse.FromString)
        replies = list(call(iter([message]), timeout=SECONDS, metadata=metadata))
    parts = [part for reply in replies for part in reply.parts]
    assert len({part.id for part in parts}) == len(parts) == 8_000
    reasons = Counter(failure_in(part).reason for part in parts[::50])
    assert reasons.keys() <= {"CANCELLED", "INVALID_FIELD", "KEY_LIMIT"}


@pytest.mark.parametrize("rpc", [3], indirect=True)
def test_requests_that_wait_count_against_their_key(rpc: Rpc) -> None:
    rpc.send(*(start(number, **ENDLESS) for number in range(1, 6)))  # two run, and one waits behind them
    for number in (4, 5):
        failure = rpc.failure(number)
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "KEY_LIMIT")
    rpc.send(cancels=[3])
    assert rpc.failure(3).reason == "CANCELLED"
    rpc.send(start(6, **SHORT), start(7, **SHORT))  # the cancelled request has made room for one
    assert rpc.failure(7).reason == "KEY_LIMIT"
    rpc.send(cancels=[1])
    assert rpc.last(6).response.HasField("summary")


@pytest.mark.parametrize("rpc", [None], indirect=True)
def test_requests_that_are_cancelled_while_they_wait_are_not_started(rpc: Rpc) -> None:
    """The server does not even check whether they are valid."""
    rpc.send(start(1, **ENDLESS), start(2, **ENDLESS))
    rpc.first(2)
    rpc.send(start(3), start(4, **SHORT), cancels=[3, 4])
    for number in (3, 4):
        assert rpc.failure(number).reason == "CANCELLED"
        assert not rpc.last(number).timings.HasField("queue")
    rpc.send(start(5))
    rpc.send(cancels=[1])
    assert rpc.failure(5).reason == "INVALID_FIELD"  # when its turn comes


def test_waiting_requests_do_not_keep_their_whole_message() -> None:
    """The error of the large requests does not keep them in memory either."""
    large = start(1, prompt="word " * 400_000)
    with (
        start_server("--engine", "synthetic") as server,
        connect(server.target) as caller,
        opened(caller.stub) as rpc,
    ):
        _send_beside(rpc, large, 1)
        before = resident_bytes(server)
        for number in range(2, 36):
            _send_beside(rpc, large, number)
        assert resident_bytes(server) - before < 24 * MEBIBYTE  # of 68


def _send_beside(rpc: Rpc, large: MultiplexStart, number: int) -> None:
    """Sends a small request together with a large one, and waits until the large one is refused."""
    large.id = 2 * number
    rpc.send(start(2 * number - 1, **ENDLESS), large)
    assert rpc.failure(2 * number).fields == ["prompt"]


def test_no_more_requests_are_started_than_there_is_room_for() -> None:
    large: dict[str, Any] = {"prompt": "word " * 200_000, "raw_text": "a"}
    with (
        start_server("--engine", "synthetic", "--max-concurrent-streams", "70") as server,
        connect(server.target) as caller,
        opened(caller.stub) as rpc,
    ):
        rpc.send(*(start(number, whole=True, timeout=SECONDS, **ENDLESS) for number in range(1, 71)))
        caller.wait_until(lambda now: now.running + now.queued == 70)
        before = resident_bytes(server)
        rpc.send(start(71, timeout=3, **large))
        for number in range(72, 192):
            rpc.send(start(number, **large))
        assert rpc.failure(71).reason == "DEADLINE_PASSED"  # by then, the server has read as much as it has room for
        assert resident_bytes(server) - before < 80 * MEBIBYTE  # of 120
        rpc.call.cancel()
