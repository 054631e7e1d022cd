"""Callers of an overloaded server, and the results of their calls."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from doherty import AsyncClient, DohertyError, OverloadedError
from doherty.v1 import generation_service_pb2_grpc, request_pb2

FirstToken = tuple[float | None, float | None]
"""The time to first token in seconds, as measured by the caller and by the server."""
NO_TOKEN: FirstToken = (None, None)

HEALTH = "/grpc.health.v1.Health/Check"


@dataclass(frozen=True)
class Call:
    """A call, including all its attempts. Times are seconds since the load began."""

    kind: str
    begun: float
    ended: float
    end: str
    """OK, or the name of the error with its reason."""
    retry_after: float | None = None
    """The retry time in seconds, if it was refused."""
    first_token: float | None = None
    """The time to first token in seconds, from the beginning of the call."""
    served_first_token: float | None = None
    """The same as measured by the server, without the time that this process spends on other callers."""
    waited: bool = False
    """Whether it was in the queue before it was refused."""

    @property
    def is_refused(self) -> bool:
        """Whether the server refused it."""
        return self.end.startswith("OverloadedError")

    @property
    def seconds(self) -> float:
        """The duration of the call."""
        return self.ended - self.begun


class Load:
    """The results of all calls of a load."""

    def __init__(self) -> None:
        """Begins now."""
        self.calls: list[Call] = []
        self._began = time.monotonic()

    def now(self) -> float:
        """The seconds since the load began."""
        return time.monotonic() - self._began

    async def answer(self, client: AsyncClient, kind: str, prompt: str, **options: Any) -> Call:
        """Makes a unary call."""
        return await self._noted(kind, lambda: _whole(client, prompt, options))

    async def stream(self, client: AsyncClient, kind: str, prompt: str, **options: Any) -> Call:
        """Streams an answer."""
        return await self._noted(kind, lambda: _streamed(client, prompt, options))

    async def _noted(self, kind: str, ask: Callable[[], Awaitable[FirstToken]]) -> Call:
        begun, retry_after, first, waited = self.now(), None, NO_TOKEN, False
        try:
            first = await ask()
            end = "OK"
        except DohertyError as error:
            end = f"{type(error).__name__}/{getattr(error, 'reason', None)}"
            if isinstance(error, OverloadedError):
                retry_after = error.retry_after
                waited = error.timings is not None and error.timings.queue is not None
        call = Call(kind, begun, self.now(), end, retry_after, *first, waited=waited)
        self.calls.append(call)
        return call

    def ok(self, kind: str = "", since: float = 0.0, until: float = float("inf")) -> int:
        """Counts the answers that were complete within a period."""
        return sum(
            call.end == "OK" and since <= call.ended < until and call.kind.startswith(kind) for call in self.calls
        )


async def _whole(client: AsyncClient, prompt: str, options: dict[str, Any]) -> FirstToken:
    await client.generate(prompt, **options)
    return NO_TOKEN


async def _streamed(client: AsyncClient, prompt: str, options: dict[str, Any]) -> FirstToken:
    begun, first = time.monotonic(), None
    async with client.stream_generate(prompt, **options) as stream:
        async for _ in stream.text_stream:
            first = first or time.monotonic() - begun
    return first, None if stream.timings is None else stream.timings.time_to_first_token


async def open_loop(rate: float, seconds: float, seed: int, begin: Callable[[int], Awaitable[Any]]) -> None:
    """Starts calls by a Poisson process, no matter how earlier ones end, and waits until all have ended."""
    rng = random.Random(seed)  # noqa: S311 - must be repeatable
    due, ends_at = time.monotonic(), time.monotonic() + seconds
    tasks: list[asyncio.Future[Any]] = []
    while True:
        due += rng.expovariate(rate)
        if due >= ends_at:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.ensure_future(begin(len(tasks))))
    await asyncio.gather(*tasks)


async def closed_loop(callers: int, seconds: float, ask: Callable[[int, int], Awaitable[Any]]) -> None:
    """Runs a number of callers, each with one call after the other, until the time is over."""
    ends_at = time.monotonic() + seconds

    async def ask_on(caller: int) -> None:
        number = 0
        while time.monotonic() < ends_at:
            await ask(caller, number)
            number += 1

    await asyncio.gather(*(ask_on(caller) for caller in range(callers)))


async def time_calls(target: str, rate: float, seconds: float, seed: int) -> tuple[list[float], list[float]]:
    """Returns the latencies of refusals and health checks in seconds.

    They are sent in turns, each on a separate channel.
    """
    refusals: list[float] = []
    checks: list[float] = []
    async with grpc.aio.insecure_channel(target) as first, grpc.aio.insecure_channel(target) as second:
        ask = generation_service_pb2_grpc.GenerationServiceStub(first).Generate
        check: Any = second.unary_unary(HEALTH)
        request = request_pb2.GenerateRequest(prompt="Why?")

        async def run_call(number: int) -> None:
            begun = time.perf_counter()
            if number % 2:
                await check(b"", timeout=10)
                checks.append(time.perf_counter() - begun)
                return
            try:
                await ask(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                refusals.append(time.perf_counter() - begun)

        await open_loop(rate, seconds, seed, run_call)
    return refusals, checks


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the quantile by nearest rank; NaN if there are no values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan
