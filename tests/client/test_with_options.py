"""Clients with other options that share connections, with both clients."""

import asyncio
import gc
from typing import Any

import grpc
import pytest

from doherty import (
    NOT_GIVEN,
    AsyncClient,
    Client,
    ClientClosedError,
    DeadlineExceededError,
    RetryPolicy,
    StreamError,
    UnavailableError,
)
from support.server import ServerProcess
from support.serving import Serving, answer, serve
from support.twins import ENDLESS, Kind, Twin, open_twin


def _names(serving: Serving, name: str) -> list[str | bytes | None]:
    return [metadata.get(name) for metadata in serving.metadata]


async def test_options_that_are_not_given_stay_unchanged(kind: Kind) -> None:
    with serve(lambda _, __: iter(answer())) as serving:
        async with open_twin(kind, serving.target, metadata={"a": "1", "b": "1"}, api_key="one") as twin:
            other = Twin(twin.client.with_options(metadata={"b": "2"}))
            third = Twin(other.client.with_options(api_key="two"))
            assert type(other.client) is type(twin.client)
            for client in (twin, other, third, twin):
                await client.generate("Hi")
                await client.stream("Hi").result()
    assert _names(serving, "a") == ["1"] * 8
    assert _names(serving, "b") == ["1", "1", "2", "2", "2", "2", "1", "1"]
    assert _names(serving, "authorization") == [*["Bearer one"] * 4, "Bearer two", "Bearer two", *["Bearer one"] * 2]


async def test_the_connections_are_shared(kind: Kind, synthetic_server: ServerProcess) -> None:
    async with open_twin(kind, synthetic_server.target) as twin:
        await twin.generate("Hi", request_id="of-the-first", max_output_tokens=1)
        other = Twin(twin.client.with_options(timeout=30))
        await other.generate("Hi", request_id="of-the-other", max_output_tokens=1)
    lines = [
        synthetic_server.wait_for("request", request_id=request_id) for request_id in ("of-the-first", "of-the-other")
    ]
    assert lines[0]["peer"] == lines[1]["peer"]


def _refuse(_: object, context: grpc.ServicerContext) -> Any:
    context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


async def test_the_retry_policy_can_differ(kind: Kind) -> None:
    quick = RetryPolicy(initial_backoff=0, max_attempts=2)
    with serve(_refuse) as serving:
        async with open_twin(kind, serving.target, retry=quick) as twin:

            async def attempts(client: Any, **parameters: Any) -> int:
                before = len(serving.requests)
                with pytest.raises(UnavailableError):
                    await Twin(client).generate("Hi", **parameters)
                return len(serving.requests) - before

            client = twin.client
            assert await attempts(client) == 2
            assert await attempts(client, max_retries=0) == 1
            assert await attempts(client, max_retries=3) == 4
            assert await attempts(client.with_options(max_retries=2)) == 3
            assert await attempts(client.with_options(retry=None)) == 1
            assert await attempts(client.with_options(retry=None), max_retries=1) == 2
            assert await attempts(client.with_options(retry=quick, max_retries=4)) == 5
            with pytest.raises(UnavailableError):
                await twin.stream("Hi", max_retries=0).result()


async def test_the_timeout_can_differ(twin: Twin) -> None:
    with pytest.raises(DeadlineExceededError):
        await Twin(twin.client.with_options(timeout=0.1)).generate("Hi", **ENDLESS)
    assert (
        await Twin(twin.client.with_options(timeout=None)).generate("Hi", max_output_tokens=1)
    ).usage.output_tokens == 1


async def test_the_retry_budget_is_shared_unless_it_differs(kind: Kind) -> None:
    quick = RetryPolicy(initial_backoff=0, max_attempts=9, budget=3)
    with serve(_refuse) as serving:
        async with open_twin(kind, serving.target, retry=quick) as twin:
            other = Twin(twin.client.with_options(max_retries=2))
            own = Twin(twin.client.with_options(retry=RetryPolicy(initial_backoff=0, max_attempts=9, budget=1)))
            for client in (other, twin, own):
                with pytest.raises(UnavailableError):
                    await client.generate("Hi")
    assert len(serving.requests) == (1 + 2) + (1 + 1) + (1 + 1)


@pytest.mark.parametrize("client", [Client("gpu:1"), AsyncClient("gpu:1")], ids=["Client", "AsyncClient"])
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"timeout": -1}, ValueError),
        ({"retry": 3}, TypeError),
        ({"max_retries": -1}, ValueError),
        ({"max_retries": "2"}, TypeError),
        ({"metadata": {"authorization": "x"}}, ValueError),
        ({"api_key": "secret"}, ValueError),
        ({"surprise": 1}, TypeError),
    ],
)
def test_options_that_cannot_be_used(client: Any, wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        client.with_options(**wrong)


async def test_a_call_uses_the_timeout_of_its_client_if_none_is_given(twin: Twin) -> None:
    assert repr(NOT_GIVEN) == "NOT_GIVEN"
    client = twin.client.with_options(timeout=NOT_GIVEN, retry=NOT_GIVEN, api_key=NOT_GIVEN)
    assert (await Twin(client).generate("Hi", timeout=NOT_GIVEN, max_output_tokens=1)).usage.output_tokens == 1


async def test_closing_the_other_client_does_not_affect_the_owner(twin: Twin) -> None:
    other = Twin(twin.client.with_options(metadata={"x-other": "1"}))
    running = other.stream("Hi", max_output_tokens=40)
    await running.next()
    await other("close")
    await other("close")
    with pytest.raises(ClientClosedError):
        await other.generate("Hi")
    assert (await running.result()).usage.output_tokens == 40
    assert (await twin.generate("Hi", max_output_tokens=1)).usage.output_tokens == 1


async def test_closing_the_owner_ends_the_calls_of_both(kind: Kind, synthetic_server: ServerProcess) -> None:
    async with open_twin(kind, synthetic_server.target) as twin:
        others = [Twin(twin.client.with_options(metadata={"x-other": str(number)})) for number in range(2)]
        streams = [other.stream("Hi", **ENDLESS) for other in others]
        for stream in streams:
            await stream.next()
        waiting = asyncio.create_task(others[0].generate("Hi", **ENDLESS))
        while (await twin("latency")).running < 3:
            pass
    with pytest.raises(ClientClosedError):
        await waiting
    for stream in streams:
        with pytest.raises((ClientClosedError, StreamError)):
            await stream.result()
    for other in others:
        with pytest.raises(ClientClosedError):
            await other.generate("Hi")


async def test_the_owner_may_be_garbage_collected(kind: Kind, synthetic_server: ServerProcess) -> None:
    def make() -> Client | AsyncClient:
        if kind == "Client":
            return Client(synthetic_server.target).with_options(timeout=30)
        return AsyncClient(synthetic_server.target, multiplex=kind == "multiplex").with_options(timeout=30)

    twin = Twin(make())
    for _ in range(2):
        gc.collect()
        assert (await twin.generate("Hi", max_output_tokens=1)).usage.output_tokens == 1
    await twin("close")


async def test_clients_with_the_same_connections_may_differ_in_sharing_rpcs(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target) as client:
        together = client.with_options(multiplex=True)
        for caller, request_id in ((client, "not-shared"), (together, "shared"), (client, "not-shared-either")):
            await caller.generate("Hi", max_output_tokens=1, request_id=request_id)
        with pytest.raises(ValueError, match="multiplex="):
            client.with_options(multiplex=-1)
    rpcs = {
        name: synthetic_server.wait_for("request", request_id=name)["rpc"]
        for name in ("not-shared", "shared", "not-shared-either")
    }
    assert rpcs["not-shared"] == rpcs["not-shared-either"] == "Generate"
    assert rpcs["shared"] != "Generate"


async def test_no_rpc_remains_of_a_garbage_collected_client(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target, multiplex=True) as client:
        await client.generate("Hi", max_output_tokens=1)
        before = asyncio.all_tasks()
        other: AsyncClient | None = client.with_options(metadata={"x-other": "1"})
        assert other is not None
        await other.generate("Hi", max_output_tokens=1)
        assert len(asyncio.all_tasks()) > len(before)
        other = None
        gc.collect()
        while asyncio.all_tasks() != before:
            await client.generate("Hi", max_output_tokens=1)
