"""Calls other than generation, such as CountTokens: turns, limits of keys, and shares."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from doherty import AsyncClient
from doherty.v1.latency_service_pb2 import GetLatencyRequest, GetLatencyResponse
from doherty_service._errors import OverloadedError
from doherty_service.admission import Shares
from doherty_service.security import ANYBODY, Caller
from doherty_service.servicers import _snapshots
from doherty_service.servicers._snapshots import Snapshots
from doherty_service.telemetry import LatencyRecorder, RequestRecord
from support.markers import only_grpcio
from support.security import add_key, connect_with
from support.server import ServerProcess, start_server
from support.wire import SECONDS, failure_of
from support.wire import Caller as WireCaller

ENOUGH = 600
"""More requests than can be summed up on the event loop."""


def test_a_single_key_may_use_everything_and_a_second_gets_its_share_immediately() -> None:
    refusals: Counter[str] = Counter()
    shares = Shares(8, refusals)
    with ExitStack() as first, ExitStack() as second:
        for _ in range(8):
            first.enter_context(shares.take("first"))
        with pytest.raises(OverloadedError), shares.take("first"):
            pass
        for _ in range(4):
            second.enter_context(shares.take("second"))
        for name in ("first", "second"):
            with pytest.raises(OverloadedError), shares.take(name):
                pass
        with shares.take("third"):
            pass
        first.close()
        for _ in range(4):
            second.enter_context(shares.take("second"))
    with ExitStack() as again:
        for _ in range(8):
            again.enter_context(shares.take("first"))
    assert refusals == {"COUNTING_FULL": 3}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    add_key(file, "first")
    return file


@pytest.fixture(scope="module")
def server(keys: Path) -> Iterator[ServerProcess]:
    with start_server("--engine", "synthetic", "-o", "slots=32", "--keys-file", str(keys)) as started:
        yield started


def latency(caller: WireCaller, window: int) -> GetLatencyResponse:
    asked = GetLatencyRequest(window=Duration(seconds=window))
    reply: GetLatencyResponse = caller.latency.GetLatency(asked, timeout=SECONDS)
    return reply


class Counting(Caller):
    """Counts what it is charged."""

    taken = 0

    def take(self) -> float:
        self.taken += 1
        return 0.0


async def test_a_large_snapshot_is_cached_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, caller = LatencyRecorder(window=300), Counting()
    snapshots = Snapshots(recorder)
    record = RequestRecord("/doherty.v1.GenerationService/Generate", "k", "r", ANYBODY)
    record.mark_tokens(1)
    record.mark_summary("stop")
    for _ in range(ENOUGH):
        recorder.finish(replace(record, status="OK"))
    monkeypatch.setattr(_snapshots, "_FRESH_SECONDS", 1000)
    first = await snapshots.take(None, caller)
    assert first.answers == ENOUGH
    recorder.finish(replace(record, status="OK"))
    assert await snapshots.take(None, caller) is first
    assert (await snapshots.take(10.0, caller)).answers == ENOUGH + 1
    assert caller.taken == 2
    monkeypatch.setattr(_snapshots, "_FRESH_SECONDS", 0)
    assert (await snapshots.take(None, caller)).answers == ENOUGH + 1
    assert caller.taken == 3


async def test_a_large_snapshot_counts_against_the_limits_of_the_key(server: ServerProcess, keys: Path) -> None:
    async with AsyncClient(server.target, api_key=add_key(keys, "many"), multiplex=True) as client:
        for _ in range(3):
            await asyncio.gather(*(client.generate("a", max_output_tokens=1) for _ in range(ENOUGH // 3)))
    with connect_with(server.target, add_key(keys, "two-a-minute", per_minute=2)) as caller:
        for window in (100, 101):
            assert latency(caller, window).answers == ENOUGH
        failure = failure_of(lambda: latency(caller, 102))
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "KEY_LIMIT")


@only_grpcio
def test_channelz_counts_against_the_limits_of_the_key(server: ServerProcess, keys: Path) -> None:
    with connect_with(server.target, add_key(keys, "one-a-minute", per_minute=1)) as caller:
        stub: Any = channelz_pb2_grpc.ChannelzStub(caller.channel)
        assert stub.GetServers(channelz_pb2.GetServersRequest(), timeout=SECONDS).server
        failure = failure_of(lambda: stub.GetServers(channelz_pb2.GetServersRequest(), timeout=SECONDS))
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "KEY_LIMIT")


@only_grpcio
def test_channelz_answers_every_method_or_not_found(server: ServerProcess, keys: Path) -> None:
    with connect_with(server.target, add_key(keys, "tools")) as caller:
        stub: Any = channelz_pb2_grpc.ChannelzStub(caller.channel)
        (listed,) = stub.GetServers(channelz_pb2.GetServersRequest(), timeout=SECONDS).server
        sockets = channelz_pb2.GetServerSocketsRequest(server_id=listed.ref.server_id)
        assert stub.GetServerSockets(sockets, timeout=SECONDS).socket_ref
        with pytest.raises(grpc.RpcError) as missing:
            stub.GetServer(channelz_pb2.GetServerRequest(server_id=10**9), timeout=SECONDS)
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND
