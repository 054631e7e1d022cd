"""When requests are made: each as soon as another one has ended, or at moments that nothing the server does can shift.

A closed loop slows down with its server, and hides how long callers would have waited who come on their own; an open
loop does not. Both call `ask` with the number of a request and the moment at which it was due, by `perf_counter`; in a
closed loop that is None, for a request is due when it is made.
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
        arrivals: When each is due, in seconds from now, rising.
        ends_at: What is due from then on, by `perf_counter`, is not made.
    """
    started = perf_counter()
    async with asyncio.TaskGroup() as asked:
        for number, after in zip(numbers, arrivals, strict=False):
            due = started + after
            if due >= ends_at:
                break
            # At least one turn of the loop, so that a generator that is late still reads its answers.
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
