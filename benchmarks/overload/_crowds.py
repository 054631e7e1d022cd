"""Callers of an overloaded server, and how they fared."""

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
"""Seconds to the first token, as the caller and as the server measures them."""
NO_TOKEN: FirstToken = (None, None)

HEALTH = "/grpc.health.v1.Health/Check"


@dataclass(frozen=True)
class Call:
    """One call, all its attempts included. Times are seconds since the load began."""

    kind: str
    begun: float
    ended: float
    end: str
    """OK, or the name of the error with its reason."""
    told: float | None = None
    """When to come back, if it was refused."""
    first_token: float | None = None
    """Seconds from its beginning."""
    served_first_token: float | None = None
    """The same as the server measures it, without the time that this process is busy with other callers."""
    waited: bool = False
    """Whether it was in the queue before it was refused."""

    @property
    def is_refused(self) -> bool:
        """Whether the server refused it."""
        return self.end.startswith("OverloadedError")

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.begun


class Load:
    """What happened to all calls of one load."""

    def __init__(self) -> None:
        """Begins now."""
        self.calls: list[Call] = []
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    async def answer(self, client: AsyncClient, kind: str, prompt: str, **options: Any) -> Call:
        """Asks for a whole answer."""
        return await self._noted(kind, lambda: _whole(client, prompt, options))

    async def stream(self, client: AsyncClient, kind: str, prompt: str, **options: Any) -> Call:
        """Streams an answer."""
        return await self._noted(kind, lambda: _streamed(client, prompt, options))

    async def _noted(self, kind: str, ask: Callable[[], Awaitable[FirstToken]]) -> Call:
        begun, told, first, waited = self.now(), None, NO_TOKEN, False
        try:
            first = await ask()
            end = "OK"
        except DohertyError as error:
            end = f"{type(error).__name__}/{getattr(error, 'reason', None)}"
            if isinstance(error, OverloadedError):
                told = error.retry_after
                waited = error.timings is not None and error.timings.queue is not None
        call = Call(kind, begun, self.now(), end, told, *first, waited=waited)
        self.calls.append(call)
        return call

    def ok(self, kind: str = "", since: float = 0.0, until: float = float("inf")) -> int:
        """How many answers were complete within a time."""
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
    """Begins calls by a Poisson process, whatever becomes of them, and waits for all of them to end."""
    rng = random.Random(seed)  # noqa: S311 - repeatable
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
    """Lets so many callers ask one thing after the other, until the time is over."""
    ends_at = time.monotonic() + seconds

    async def ask_on(caller: int) -> None:
        number = 0
        while time.monotonic() < ends_at:
            await ask(caller, number)
            number += 1

    await asyncio.gather(*(ask_on(caller) for caller in range(callers)))


async def time_calls(target: str, rate: float, seconds: float, seed: int) -> tuple[list[float], list[float]]:
    """How long refusals and health checks take, in seconds: sent in turns, each on a channel of its own."""
    refusals: list[float] = []
    checks: list[float] = []
    async with grpc.aio.insecure_channel(target) as first, grpc.aio.insecure_channel(target) as second:
        ask = generation_service_pb2_grpc.GenerationServiceStub(first).Generate
        check: Any = second.unary_unary(HEALTH)
        request = request_pb2.GenerateRequest(prompt="Why?")

        async def one(number: int) -> None:
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

        await open_loop(rate, seconds, seed, one)
    return refusals, checks


def quantile(values: Sequence[float], share: float) -> float:
    """By nearest rank; not a number where there are none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan
