"""Metadata that a caller adds to calls, and metadata of replies, with both clients."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from doherty import (
    AsyncClient,
    AuthenticationError,
    Client,
    ClientClosedError,
    DeadlineExceededError,
    ReplyMetadata,
    RetryPolicy,
    StreamError,
)
from doherty._core._actions import Send
from doherty._core._balance import Target
from doherty._core._metadata import check_metadata
from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from doherty.v1.request_pb2 import GenerateRequest
from support.server import ServerProcess
from support.serving import Serving, answer, serve
from support.twins import Kind, open_twin

SECRET = "s3cr3t"  # noqa: S105 - not a real key


@pytest.fixture
def serving() -> Iterator[Serving]:
    with serve(lambda _, __: iter(answer())) as running:
        yield running


def _seen(serving: Serving, name: str) -> list[str | bytes | None]:
    return [metadata.get(name) for metadata in serving.metadata]


async def test_metadata_of_the_client_and_of_the_call_are_sent(kind: Kind, serving: Serving) -> None:
    metadata = {"X-Tenant": "one", "x-bin": b"\xff\x00"}
    async with open_twin(kind, serving.target, api_key="key", metadata=metadata) as twin:
        await twin.generate("Hi")
        await twin.generate("Hi", metadata=[("x-tenant", "two"), ("x-more", "3")])
        await twin.stream("Hi", metadata={"x-tenant": "three"}).result()
    assert _seen(serving, "x-tenant") == ["one", "two", "three"]
    assert _seen(serving, "x-bin") == [b"\xff\x00"] * 3
    assert _seen(serving, "x-more") == [None, "3", None]
    assert _seen(serving, "authorization") == ["Bearer key"] * 3


async def test_the_small_calls_have_metadata_too(kind: Kind, synthetic_server: ServerProcess) -> None:
    async with open_twin(kind, synthetic_server.target) as twin:
        for method, arguments in (("count_tokens", ("Hi",)), ("model", ()), ("latency", ())):
            await twin(method, *arguments, metadata={"x-tenant": "one"}, max_retries=0)
            with pytest.raises(ValueError, match="sets it"):
                await twin(method, *arguments, metadata={"grpc-timeout": "1S"})


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        (7, TypeError),
        ("name", TypeError),
        ([("name",)], TypeError),
        (["ab"], TypeError),
        ({7: "x"}, TypeError),
        ({"x": b"bytes"}, TypeError),
        ({"x-bin": "text"}, TypeError),
        ({"x": None}, TypeError),
        ({"": "x"}, ValueError),
        ({"with space": "x"}, ValueError),
        ({":path": "x"}, ValueError),
        ({"x": f"{SECRET}\n"}, ValueError),
        ({"x": f"{SECRET}é"}, ValueError),
        ({"Authorization": f"Bearer {SECRET}"}, ValueError),
        ({"grpc-timeout": "1S"}, ValueError),
        ({"doherty-attempts": "3"}, ValueError),
        ({"content-type": "text/plain"}, ValueError),
        ({"Connection": "close"}, ValueError),
    ],
)
def test_invalid_metadata_are_refused_and_not_shown(metadata: Any, error: type[Exception]) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(error, match="metadata=") as raised:
            client("localhost:1", metadata=metadata)
        assert SECRET not in str(raised.value)
    with Client("localhost:1") as opened, pytest.raises(error, match="metadata="):
        opened.generate("Hi", metadata=metadata)


async def test_no_value_is_in_a_log_or_a_repr(kind: Kind, serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_twin(kind, serving.target, metadata={"x-token": SECRET}, api_key=SECRET) as twin:
        await twin.generate("Hi", metadata={"x-other": SECRET})
        assert SECRET not in repr(twin.client) + repr(vars(twin.client))
    async with open_twin(kind, "127.0.0.1:1", metadata={"x-token": SECRET}, retry=None) as twin:
        with pytest.raises(ConnectionError) as raised:
            await twin.generate("Hi")
        assert SECRET not in repr(raised.value)
    pairs = check_metadata({"x-token": SECRET})
    send = Send("Generate", Target(0, "a:1"), GenerateRequest(), None, pairs, pairs)
    assert SECRET not in repr(send) + caplog.text
    assert repr(pairs) == "Pairs(x-token)"
    assert "Generate" in caplog.text


class Keys:
    """A key that changes with every use."""

    def __init__(self) -> None:
        self.given = 0
        self.threads: list[threading.Thread] = []

    def __call__(self) -> str:
        self.threads.append(threading.current_thread())
        self.given += 1
        return f"key{self.given}"

    async def on_the_loop(self) -> str:
        await asyncio.sleep(0)
        return self()


async def test_a_callable_key_is_called_for_every_attempt(kind: Kind) -> None:
    def refuse_the_first(_: GenerateRequest, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        if len(running.requests) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return iter(answer())

    keys = Keys()
    with serve(refuse_the_first) as running:
        async with open_twin(kind, running.target, api_key=keys, retry=RetryPolicy(initial_backoff=0)) as twin:
            await twin.generate("Hi")
            await twin.stream("Hi").result()
    assert _seen(running, "authorization") == ["Bearer key1", "Bearer key2", "Bearer key3"]
    assert kind == "Client" or threading.current_thread() not in keys.threads


async def test_an_asynchronous_key_is_called_on_the_event_loop(serving: Serving) -> None:
    keys = Keys()
    for multiplex in (False, True):
        async with AsyncClient(serving.target, api_key=keys.on_the_loop, multiplex=multiplex) as client:
            await client.generate("Hi")
            async with client.stream_generate("Hi") as stream:
                await stream.result()
            await client.stream_generate("Hi").close()  # which was never read
    assert _seen(serving, "authorization") == [f"Bearer key{number}" for number in range(1, 5)]
    assert set(keys.threads) == {threading.current_thread()}


async def test_requests_with_the_same_key_share_an_rpc(serving: Serving) -> None:
    key = "one"
    async with AsyncClient(serving.target, api_key=lambda: key, multiplex=True, metadata={"x": "y"}) as client:
        first, second = await asyncio.gather(client.generate("Hi"), client.generate("Hi"))
        key = "two"
        third = await client.generate("Hi")
    assert (str(first), str(second), str(third)) == ("fine", "fine", "fine")
    assert _seen(serving, "authorization") == ["Bearer one", "Bearer one", "Bearer two"]


@pytest.mark.parametrize(
    ("returned", "error"), [(OSError(SECRET), OSError), (7, TypeError), (f"{SECRET} x", ValueError), ("", None)]
)
async def test_the_result_of_a_callable_key_is_checked(
    kind: Kind, serving: Serving, returned: object, error: type[Exception] | None
) -> None:
    def key() -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    async with open_twin(kind, serving.target, api_key=key) as twin:
        if error is None:
            assert str(await twin.generate("Hi")) == "fine"
            assert _seen(serving, "authorization") == [None]
            return
        with pytest.raises(error):
            await twin.generate("Hi")
        with pytest.raises(error):
            await twin.stream("Hi").result()
        with pytest.raises(error):
            await twin("health")
    assert serving.requests == []


async def test_a_synchronous_client_refuses_an_asynchronous_key(serving: Serving) -> None:
    async def key() -> str:
        return "key"  # pragma: no cover - it is never awaited

    client = Client(serving.target, api_key=key)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with client, pytest.raises(TypeError, match="AsyncClient"):
        client.generate("Hi")


async def test_waiting_for_a_key_ends_at_the_timeout(serving: Serving) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    released = threading.Event()
    for key in (never, lambda: str(released.wait())):
        async with AsyncClient(serving.target, api_key=key) as client:
            with pytest.raises(DeadlineExceededError, match="api_key= did not return a key within"):
                await client.generate("Hi", timeout=0.05)
    released.set()


async def test_waiting_for_a_key_blocks_no_other_call(serving: Serving) -> None:
    key_calls: asyncio.Queue[None] = asyncio.Queue()

    async def never() -> str:
        key_calls.put_nowait(None)
        await asyncio.Event().wait()
        return ""

    async with AsyncClient(serving.target, api_key=never, timeout=None) as client:
        with pytest.raises(DeadlineExceededError, match="first_token_timeout="):
            await client.stream_generate("Hi", first_token_timeout=0.05).result()
        stream = client.stream_generate("Hi")
        reading, waiting = asyncio.create_task(stream.result()), asyncio.create_task(client.generate("Hi"))
        for _ in range(3):
            await key_calls.get()
        await stream.close()
        with pytest.raises(StreamError, match="closed"):
            await reading
    with pytest.raises(ClientClosedError):
        await waiting
    assert not serving.requests


def test_a_callable_key_is_not_sent_to_another_machine_unencrypted() -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(ValueError, match="unencrypted"):
            client("gpu:1", api_key=lambda: SECRET)


async def test_a_wrong_callable_key_raises_the_same_error_as_a_wrong_key(kind: Kind) -> None:
    def handler(_: object, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")

    with serve(handler) as serving:
        async with open_twin(kind, serving.target, api_key=lambda: "wrong") as twin:
            with pytest.raises(AuthenticationError):
                await twin.generate("Hi")
    assert len(serving.requests) == 1


async def test_the_metadata_of_a_reply_can_be_read(kind: Kind) -> None:
    def handler(_: object, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        context.send_initial_metadata((("x-first", "a"), ("x-first", "b"), ("x-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-last", "c"),))
        return iter(answer())

    with serve(handler) as serving:
        async with open_twin(kind, serving.target) as twin:
            whole = await twin.generate("Hi")
            stream = twin.stream("Hi")
            assert stream.stream.metadata == ReplyMetadata()
            await stream.next()
            begun = stream.stream.metadata
            streamed = await stream.result()
    first = {"x-first": "a, b", "x-bin": b"\x00\xff"}
    trailing = {} if kind == "multiplex" else {"x-last": "c"}
    assert (begun.initial, begun.trailing) == (first, {})
    for metadata in (whole.metadata, streamed.metadata, stream.stream.metadata):
        assert (metadata.initial, metadata.trailing) == (first, trailing)
    assert whole != streamed or hash(whole) == hash(streamed)


async def test_the_server_sends_its_timings_in_the_trailing_metadata(
    kind: Kind, synthetic_server: ServerProcess
) -> None:
    async with open_twin(kind, synthetic_server.target) as twin:
        for answered in (
            await twin.generate("Hi", max_output_tokens=2),
            await twin.stream("Hi", max_output_tokens=2).result(),
        ):
            assert ("server-timing" in answered.metadata.trailing) is (kind != "multiplex")
        alone = await twin.generate("Hi", max_output_tokens=2, metadata={"x": "y"})
        assert "server-timing" in alone.metadata.trailing
