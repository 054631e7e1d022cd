"""Runs a load, from its first request to its last."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count, islice
from math import inf
from time import perf_counter

from doherty import AsyncClient, DohertyError, Latency, ModelInfo
from doherty.cli._load._loops import closed_loop, open_loop, poisson_arrivals
from doherty.cli._load._overhead import Overhead, OverheadMeter
from doherty.cli._load._prompts import LoadPrompt
from doherty.cli._load._sample import Asker, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Which requests are made, and when."""

    prompts: tuple[LoadPrompt, ...]
    """The prompts, used in turn."""
    concurrency: int = 1
    """The number of requests that a closed loop keeps in flight."""
    rate: float | None = None
    """The number of requests per second of an open loop; None means a closed loop."""
    requests: int | None = None
    """The number of requests for each target."""
    duration: float | None = None
    """The time in seconds after which no more requests are sent."""
    block: int | None = None
    """The number of requests that go to one target before the next one's turn; None means all of them."""
    warm_up: int = 0
    """The number of unmeasured requests at the start."""
    seed: int = 0
    """The seed of the random arrivals."""
    streaming: bool = True
    max_output_tokens: int | None = None

    def blocks(self) -> Iterator[Iterable[int]]:
        """The numbers of the requests, block by block."""
        numbers: Iterator[int] = iter(range(self.requests)) if self.requests else count()
        if self.block is None:
            yield numbers
            return
        while block := tuple(islice(numbers, self.block)):
            yield block


@dataclass(slots=True)
class Side:
    """One target of a load, and what was measured there."""

    target: str
    model: ModelInfo
    asker: Asker
    blocks: list[list[Sample]] = field(default_factory=list)
    """The measurements of each block."""
    seconds: float = 0.0
    """The duration of all blocks together, in seconds."""
    first_error: DohertyError | None = None
    before: Latency | None = None
    after: Latency | None = None
    """The server's own report before and after the load; None if there is none."""

    @property
    def samples(self) -> list[Sample]:
        """All measurements."""
        return [sample for block in self.blocks for sample in block]

    @property
    def answers(self) -> list[Sample]:
        """The measurements of the requests that were answered."""
        return [sample for sample in self.samples if sample.failure is None]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of a load."""

    load: LoadOptions
    sides: tuple[Side, ...]
    overhead: Overhead
    begun: datetime
    """When its first measured request was made, in local time."""
    interrupted: bool
    """Whether Ctrl-C ended it early."""


async def run_load(
    clients: Iterable[AsyncClient], load: LoadOptions, on_sample: Callable[[Sample], None]
) -> LoadResult:
    """Runs a load and measures it.

    With several clients the blocks alternate between them, in the order A B B A, which takes the effect of a steady
    drift out of their comparison; only one is under load at a time.

    Args:
        clients: One for each target; they are closed.
        load: Which requests are made, and when.
        on_sample: Called for each request that has ended.

    Raises:
        DohertyError: A server was not reached, or refused even the first question.
    """
    async with AsyncExitStack() as stack:
        sides = [await _prepare(await stack.enter_async_context(client), load, on_sample) for client in clients]
        begun = datetime.now().astimezone()
        with OverheadMeter() as meter:
            interrupted = await _stoppable(_measure(load, sides))
        for side in sides:
            side.after = await _look(side.asker.client)
    samples = [sample for side in sides for sample in side.samples]
    overhead = meter.overhead(sum(sample.messages for sample in samples), (sample.send_wait for sample in samples))
    return LoadResult(load, tuple(sides), overhead, begun, interrupted)


async def _prepare(client: AsyncClient, load: LoadOptions, on_sample: Callable[[Sample], None]) -> Side:
    def ignore(sample: Sample, error: DohertyError | None) -> None:
        """A warm-up is not measured. A server that fails it fails the load, too."""

    def take(sample: Sample, error: DohertyError | None) -> None:
        side.blocks[-1].append(sample)
        side.first_error = side.first_error or error
        on_sample(sample)

    model = await client.model()
    asker = Asker(client, load.prompts, load.streaming, load.max_output_tokens, ignore)
    await closed_loop(asker, range(load.warm_up), concurrency=load.concurrency)
    side = Side(client.target, model, Asker(client, load.prompts, load.streaming, load.max_output_tokens, take))
    side.before = await _look(client)
    return side


async def _measure(load: LoadOptions, sides: list[Side]) -> None:
    ends_at = inf if load.duration is None else perf_counter() + load.duration
    for index, numbers in enumerate(load.blocks()):
        if perf_counter() >= ends_at:
            break
        for side in sides if index % 2 == 0 else reversed(sides):
            side.blocks.append([])
            started = perf_counter()
            # A block of a comparison is always completed, because only its pairs count.
            until = ends_at if load.block is None else inf
            try:
                if load.rate is None:
                    await closed_loop(side.asker, numbers, concurrency=load.concurrency, ends_at=until)
                else:
                    arrivals = poisson_arrivals(load.rate, load.seed + index)
                    await open_loop(side.asker, numbers, arrivals, ends_at=until)
            finally:
                side.seconds += perf_counter() - started


async def _stoppable(measuring: Coroutine[None, None, None]) -> bool:
    """Lets Ctrl-C end only the measuring, so that the result so far can be reported. Returns whether it did."""
    task = asyncio.current_task()
    try:
        await measuring
    except asyncio.CancelledError:
        if task is not None:
            task.uncancel()
        return True
    return False


async def _look(client: AsyncClient) -> Latency | None:
    try:
        return await client.latency()
    except DohertyError:
        # It died under the load, or this key has no permission. The report then has no figures of the server.
        return None
