"""Faults that other SDKs have; README.md lists them and their tests."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from doherty import AsyncClient, Client, OverloadedError
from support.proxy import proxy
from support.server import ServerProcess


async def test_requests_share_one_connection(synthetic_server: ServerProcess) -> None:
    """Fault 14: each request had a channel of its own."""
    with proxy(synthetic_server.target) as wire, Client(wire.target) as client:
        for _ in range(5):
            client.generate("a", max_output_tokens=1)
            list(client.stream_generate("a", max_output_tokens=1))
        assert wire.connections == 1
    with proxy(synthetic_server.target) as wire:
        async with AsyncClient(wire.target) as client:
            for _ in range(5):
                await client.generate("a", max_output_tokens=1)
                await client.stream_generate("a", max_output_tokens=1).result()
        assert wire.connections == 1


@pytest.fixture
def refusing() -> Iterator[tuple[list[str], str]]:
    """Runs a server that has no room and sends no retry time. Yields the methods that were called, and its address."""
    called_methods: list[str] = []

    def refuse(call: Any, method: str) -> Any:
        def behavior(_: bytes, context: Any) -> None:
            called_methods.append(method)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")

        return call(behavior)

    methods = {
        "Generate": refuse(grpc.unary_unary_rpc_method_handler, "Generate"),
        "StreamGenerate": refuse(grpc.unary_stream_rpc_method_handler, "StreamGenerate"),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("doherty.v1.GenerationService", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield called_methods, f"127.0.0.1:{port}"
    server.stop(None).wait()


async def test_a_refusal_without_retry_info_is_final(refusing: tuple[list[str], str]) -> None:
    """Fault 28: RESOURCE_EXHAUSTED was retried although the server had not asked for that."""
    called_methods, target = refusing
    with Client(target) as client:
        with pytest.raises(OverloadedError):
            client.generate("a")
        with pytest.raises(OverloadedError):
            client.stream_generate("a").result()
    async with AsyncClient(target) as other:
        with pytest.raises(OverloadedError):
            await other.generate("a")
        with pytest.raises(OverloadedError):
            await other.stream_generate("a").result()
    assert called_methods == ["Generate", "StreamGenerate"] * 2
