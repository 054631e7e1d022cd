"""Idle connections neither keep out new ones nor use up the descriptors of the engine."""

import asyncio
import ipaddress
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty_service.transport._connections import ConnectionGuard, _Connection
from support.http2 import GREETING, RawConnection, raw_connection
from support.metrics import LISTEN, scrape
from support.security import add_key, connect_with
from support.server import ServerProcess, start_server
from support.wire import SECONDS, request

SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 2}}
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 6000, "ignore_eos": True}}
IDLE = 1_000
CALLERS = 8

LATER = 1000.0

UNDER_A_LIMIT = f'#!/bin/sh\nulimit -n 1024\nexec {sys.executable} "$@"\n'


@pytest.fixture
def idle() -> Iterator[ExitStack]:
    """Keeps idle connections open until the end of the test."""
    with ExitStack() as stack:
        yield stack


def open_idle(stack: ExitStack, target: str, number: int) -> list[RawConnection]:
    connections = []
    for _ in range(number):
        connection = stack.enter_context(raw_connection(target))
        with suppress(ConnectionError):
            connection.send(GREETING)
        connections.append(connection)
    return connections


def descriptors(server: ServerProcess) -> int:
    """Returns the number of files and connections that the process has open."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


@pytest.mark.model
def test_a_server_with_few_descriptors_survives_a_thousand_idle_connections(tmp_path: Path, idle: ExitStack) -> None:
    """All callers have the address of the idle connections, and each call has a connection of its own."""
    keys, python = tmp_path / "keys.json", tmp_path / "python"
    token = add_key(keys, "caller")
    python.write_text(UNDER_A_LIMIT)
    python.chmod(0o755)
    flags = ("--keys-file", str(keys), "--canary-interval", "1", *LISTEN)
    with start_server(*flags, python=str(python)) as server:
        limits = server.wait_for("few_files")
        assert (limits["limit"], limits["connections"]) == (1024, 512)
        with connect_with(server.target, token) as steady:
            open_idle(idle, server.target, IDLE)

            def call(_: int) -> bool:
                with connect_with(server.target, token) as caller:
                    return bool(caller.generate(**SHORT).text)

            with ThreadPoolExecutor(CALLERS) as pool:
                assert all(pool.map(call, range(5 * CALLERS)))
            steady.wait_until(lambda _: descriptors(server) < 200)
            assert steady.generate(**SHORT).text  # on a connection that existed before
        assert scrape(server).value("doherty_engine_restarts_total") == 0
        closed = server.wait_for("connections_closed")
        assert closed["peers"] == ["127.0.0.1"]
        assert server.stop() == 0


def test_connections_with_a_key_and_health_checks_stay(tmp_path: Path, idle: ExitStack) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "caller")
    with (
        start_server("--engine", "synthetic", "--keys-file", str(keys), "--max-connections", "64") as server,
        connect_with(server.target, token) as first,
        connect_with(server.target, token) as second,
    ):
        stub: Any = health_pb2_grpc.HealthStub(first.channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        next(watching)
        streams = [caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS) for caller in (first, second)]
        for stream in streams:
            next(stream)
        before = descriptors(server)
        for _ in range(3):
            open_idle(idle, server.target, 40)
            first.wait_until(lambda _: descriptors(server) <= before + 8)
        for stream in streams:
            next(stream)
            stream.cancel()
        assert watching.is_active()


def connection(host: str, seen: float, *, has_key: bool = False) -> _Connection:
    return _Connection(0, (host, int(seen)), ipaddress.ip_address(host), seen, has_key)


def test_the_oldest_without_a_key_go_first_and_a_trusted_proxy_may_have_more() -> None:
    guard = ConnectionGuard(64, [ipaddress.ip_network("10.0.0.0/8")])
    crowd = [connection("192.0.2.1", seen) for seen in range(20)]
    others = [connection("192.0.2.2", 0), connection("192.0.2.1", 0, has_key=True)]
    proxy = [connection("10.1.2.3", seen) for seen in range(20)]
    neighbours = [connection(f"2001:db8::{seen:x}", seen) for seen in range(1, 21)]  # addresses of the same /64 network
    surplus = guard.surplus([*crowd, *others, *proxy, *neighbours], LATER)
    assert {chosen.seen for chosen in surplus if chosen in crowd} == set(range(12))
    assert {chosen.seen for chosen in surplus if chosen in neighbours} == set(range(1, 13))
    assert len(surplus) == 24


def test_many_peers_leave_room_for_newcomers() -> None:
    guard = ConnectionGuard(64)
    crowd = [connection(f"192.0.2.{seen}", seen) for seen in range(64)]
    assert {chosen.seen for chosen in guard.surplus(crowd, LATER)} == set(range(16))
    with_key = [connection(f"198.51.100.{seen}", 0, has_key=True) for seen in range(60)]
    assert {chosen.seen for chosen in guard.surplus([*with_key, *crowd], LATER)} == set(range(56))
    with_key = [connection("198.51.100.1", seen, has_key=True) for seen in range(66)]
    assert {chosen.seen for chosen in guard.surplus(with_key, LATER)} == {64, 65}


def test_new_connections_have_a_second_to_send_their_key() -> None:
    guard = ConnectionGuard(64)
    crowd = [connection("192.0.2.1", LATER - 0.01 * age) for age in range(40)]
    assert guard.surplus(crowd, LATER) == crowd[32:]
    assert guard.surplus(crowd, LATER + 0.9) == crowd[10:]
    assert guard.surplus(crowd, LATER + 1) == crowd[8:]


def test_connections_that_one_check_finds_may_first_send_their_key_unless_grpc_could_accept_no_more() -> None:
    guard = ConnectionGuard(64)  # gRPC accepts 128
    crowd = [connection("192.0.2.1", LATER) for _ in range(97)]
    assert guard.surplus(crowd[1:], LATER + 0.09) == []
    assert guard.surplus(crowd[1:], LATER + 0.11) == crowd[33:]
    assert guard.surplus(crowd, LATER + 0.09) == crowd[32:]


async def test_peers_without_an_address_do_not_end_the_guard() -> None:
    """If a connection was closed early, gRPC reports an empty peer. The guard only checks more than two connections."""
    guard = ConnectionGuard(1)
    for name in ("", "unknown", "unix:/run/a"):
        guard.accept(name)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await guard.run("127.0.0.1:1")
