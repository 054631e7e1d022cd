"""Decides when requests are sent: when an earlier one has ended (closed loop), or at fixed times (open loop).

A closed loop slows down with its server, and so hides how long independent callers would have waited. An open loop does
not. Both call `ask` with the number of a request and the time at which it was due (`perf_counter`). In a closed loop,
the time is None, because a request is due when it is sent.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from math import inf
from random import Random
from time import perf_counter

Ask = Callable[[int, float | None], Awaitable[None]]


async def closed_loop(ask: Ask, numbers: Iterable[int], *, concurrency: int, ends_at: float = inf) -> None:
    """Keeps `concurrency` requests in flight until the numbers run out, or until `ends_at` by `perf_counter`."""
    left = iter(numbers)

    async def work() -> None:
        while perf_counter() < ends_at and (number := next(left, None)) is not None:
            await ask(number, None)

    async with asyncio.TaskGroup() as workers:
        for _ in range(concurrency):
            workers.create_task(work())


async def open_loop(ask: Ask, numbers: Iterable[int], arrivals: Iterable[float], *, ends_at: float = inf) -> None:
    """Sends each request at its arrival time, without waiting for earlier ones, and then waits for all of them.

    Args:
        ask: Makes a request.
        numbers: The requests.
        arrivals: When each request is due, in seconds from now, in ascending order.
        ends_at: Requests that are due at or after this time (`perf_counter`) are not sent.
    """
    started = perf_counter()
    async with asyncio.TaskGroup() as asked:
        for number, after in zip(numbers, arrivals, strict=False):
            due = started + after
            if due >= ends_at:
                break
            # Wait for at least one turn of the loop, so that a generator that is late still reads its answers.
            await asyncio.sleep(max(0.0, due - perf_counter()))
            asked.create_task(_as_coroutine(ask(number, due)))


async def _as_coroutine(asking: Awaitable[None]) -> None:
    await asking


def poisson_arrivals(rate: float, seed: int) -> Iterator[float]:
    """Yields the arrival times of independent callers without end, on average `rate` per second."""
    # No secret depends on it: the same seed has to give the same arrivals.
    random = Random(seed)  # noqa: S311
    at = 0.0
    while True:
        at += random.expovariate(rate)
        yield at
