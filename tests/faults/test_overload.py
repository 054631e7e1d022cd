"""Overload: the server uses its capacity, refuses the rest immediately, and shares it fairly between keys."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from doherty import AsyncClient, DohertyError
from doherty.v1 import (
    generation_service_pb2_grpc,
    latency_service_pb2,
    latency_service_pb2_grpc,
    request_pb2,
)
from doherty_service.security import changing_keys
from support.security import add_key, bearer
from support.server import start_server
from support.wire import connect, read_failure, request

SYNTHETIC = ("--engine", "synthetic")
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 6000, "ignore_eos": True}}
SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


async def many(number: int, ask: Callable[[int], Awaitable[object]], apart: float) -> Counter[str]:
    """Starts calls one after the other, and counts how they end."""

    async def run_call(index: int) -> str:
        try:
            await ask(index)
        except DohertyError as error:
            return str(getattr(error, "reason", None) or type(error).__name__)
        return "OK"

    tasks: list[asyncio.Future[str]] = []
    for index in range(number):
        tasks.append(asyncio.ensure_future(run_call(index)))
        await asyncio.sleep(apart)  # the load has a rate
    return Counter(await asyncio.gather(*tasks))


@pytest.mark.parametrize(
    ("answer", "most"), [("5000", 200), ("200", 1024)], ids=["callers say how long", "callers say nothing"]
)
async def test_an_overloaded_cold_server_serves_its_capacity(answer: str, most: int) -> None:
    """2 slots, answers of 0.4 s, deadlines of 3 s: the capacity is 5 per second, and the load is 50."""
    flags = (*SYNTHETIC, "-o", "slots=2", "-o", "tokens_per_second=500", "-o", f"answer_tokens={answer}")
    with start_server(*flags) as server:
        async with AsyncClient(server.target, retry=None) as client:
            ends = await many(150, lambda index: client.generate(f"q{index}", max_output_tokens=most, timeout=3), 0.02)
    # If the length of answers is unknown, all admitted requests are cut off, and nothing would be learned from them.
    assert ends["OK"] > ends.total() - ends["OK"] - ends["DEADLINE_TOO_SHORT"]
    assert ends["DEADLINE_TOO_SHORT"] > ends.total() / 2


@contextmanager
def shared(folder: Path, *flags: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Runs a server for two keys."""
    keys = folder / "keys.json"
    tokens = {name: add_key(keys, name) for name in ("alice", "flood")}
    with start_server(*SYNTHETIC, *flags, "--keys-file", str(keys)) as server:
        yield server.target, tokens


async def test_a_flooding_key_does_not_delay_others(tmp_path: Path) -> None:
    order: list[str] = []
    begun = asyncio.Event()
    with shared(tmp_path, "-o", "slots=1", "-o", "tokens_per_second=200") as (target, tokens):
        async with (
            AsyncClient(target, api_key=tokens["flood"]) as flood,
            AsyncClient(target, api_key=tokens["alice"]) as alice,
        ):

            async def ask(client: AsyncClient, name: str) -> None:
                await client.generate("Why?", max_output_tokens=20)
                order.append(name)
                begun.set()

            await alice.wait_ready()
            floods = [asyncio.ensure_future(ask(flood, "flood")) for _ in range(40)]
            await begun.wait()
            before = len(order)
            await ask(alice, "alice")
            await asyncio.gather(*floods)
    assert order.index("alice") - before <= 6  # of the 39 that waited


async def test_a_key_may_be_limited_to_batch(tmp_path: Path) -> None:
    with shared(tmp_path, "-o", "slots=1", "--max-queued-requests", "1") as (target, tokens):
        with changing_keys(tmp_path / "keys.json") as keys:
            bound = [
                key.model_copy(update={"highest_priority": "batch"}) if key.name == "flood" else key for key in keys
            ]
            keys[:] = bound
        with grpc.insecure_channel(target) as channel:
            stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
            alice, flood = (bearer(tokens[name]) for name in ("alice", "flood"))
            running = stub.StreamGenerate(request(**ENDLESS), metadata=alice)
            next(running)
            batch = stub.Generate.future(request(priority="PRIORITY_INTERACTIVE", **SHORT), metadata=flood)
            wait_for_queue(channel, alice)
            person = stub.Generate.future(request(**SHORT), metadata=alice)
            # It counts as a batch request, although it asked for another priority.
            assert read_failure(failed(batch)).reason == "QUEUE_FULL"
            running.cancel()
            assert person.result().summary.usage.output_tokens == 4


def wait_for_queue(channel: grpc.Channel, metadata: Any) -> None:
    """Returns when a request waits."""
    stub = latency_service_pb2_grpc.LatencyServiceStub(channel)
    while not stub.GetLatency(latency_service_pb2.GetLatencyRequest(), metadata=metadata).queued:
        pass


def failed(call: Any) -> Any:
    """Waits until a call has failed, and returns the failure."""
    error = call.exception()
    assert error is not None
    return error


async def test_grpcs_own_retries_get_a_pushback() -> None:
    """6 callers, one slot, one place: without pushback, all attempts would end before an answer is complete."""
    flags = ("-o", "slots=1", "-o", "tokens_per_second=100", "-o", "answer_tokens=60", "--max-queued-requests", "1")
    with start_server(*SYNTHETIC, *flags) as server:
        options = [("grpc.service_config", json.dumps(RETRIES))]
        async with grpc.aio.insecure_channel(server.target, options) as channel:
            ask = generation_service_pb2_grpc.GenerationServiceStub(channel).Generate
            await ask(request_pb2.GenerateRequest(prompt="Why?"))
            replies = await asyncio.gather(*(ask(request_pb2.GenerateRequest(prompt="Why?")) for _ in range(6)))
    assert len(replies) == 6


def test_retry_info_and_pushback_agree() -> None:
    with (
        start_server(*SYNTHETIC, "-o", "slots=1", "-o", "tokens_per_second=20", "--max-queued-requests", "0") as server,
        connect(server.target) as caller,
    ):
        running = caller.stub.StreamGenerate(request(**ENDLESS))
        next(running)

        def refused(**options: Any) -> tuple[str, float, int]:
            call = caller.stub.Generate.future(request(**ENDLESS), **options)
            failure = read_failure(failed(call))
            assert failure.retry_seconds is not None
            return failure.reason, failure.retry_seconds, int(dict(call.trailing_metadata())["grpc-retry-pushback-ms"])

        refusals = [refused() for _ in range(5)]
        for reason, seconds, pushback in refusals:
            assert reason == "QUEUE_FULL"
            assert pushback == pytest.approx(seconds * 1000, abs=1)
        assert len({seconds for _, seconds, _ in refusals}) > 1  # not all callers should come back at the same moment
        reason, _, pushback = refused(timeout=2)
        assert (reason, pushback) == ("DEADLINE_TOO_SHORT", -1)
        running.cancel()


async def test_no_place_is_reserved_for_callers_that_do_not_retry() -> None:
    flags = ("-o", "slots=2", "-o", "tokens_per_second=200", "-o", "answer_tokens=40", "--max-queued-requests", "4")
    with start_server(*SYNTHETIC, *flags) as server:
        async with AsyncClient(server.target, retry=None) as once:
            ends = await many(100, lambda index: once.generate(f"q{index}"), 0.001)
            assert ends["QUEUE_FULL"] > 50
            # All admitted requests have ended, so nothing waits, and a new request is served.
            ends = await many(6, lambda index: once.generate(f"then {index}"), 0)
            assert ends == {"OK": 6}


def test_an_invalid_trying_since_is_ignored() -> None:
    with start_server(*SYNTHETIC) as server, connect(server.target) as caller:
        for value in ("-5", "soon", "9" * 30, "1.5", ""):
            metadata = (("doherty-trying-since-ms", value),)
            assert caller.stub.Generate(request(**SHORT), metadata=metadata).summary.usage.output_tokens == 4
