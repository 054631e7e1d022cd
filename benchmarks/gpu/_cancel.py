"""Measures how long a slot stays taken after its caller has cancelled, on a full server.

All slots are taken, and more requests wait. Callers cancel one request after the other, and the first waiting request
gets the slot. The time at which it got the slot is the arrival of its first message, minus the server's time from the
slot to the first token. This is too late by the transfer of that message. The slot is the server's: vLLM removes the
cancelled request only before its next step, and the new request gets its first token in the step after that. So its
time from the slot to the first token is printed, too.
"""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from random import Random
from time import perf_counter

from _figures import percentile
from _shape import prompt_ids, prompt_text
from _sides import Side
from doherty import AsyncClient, AsyncGenerationStream, DohertyError, GenerateOptions, RawText

LONG = 300
SHORT = 100
CANCELS = 20
ROUNDS = 3
PAUSE = 0.03
"""Seconds between two cancellations: some steps of the engine."""


async def measure_cancel(sides: list[Side], out: Path) -> None:
    """Measures, prints the quantiles, and stores them in `out`."""
    (side,) = [side for side in sides if side.name == "doherty"]
    freed: list[float] = []
    first: list[float] = []
    gaps: list[float] = []
    async with AsyncClient(side.target) as client:
        slots = (await client.model()).limits.slots
        for number in range(ROUNDS):
            await _round(client, slots, number, (freed, first, gaps))
    rows = {"cancel to free slot": freed, "slot to first token": first, "gap between the steps of others": gaps}
    quantiles = {name: [percentile(values, share) * 1e3 for share in (0.5, 0.9, 1.0)] for name, values in rows.items()}
    (out / "cancel.json").write_text(json.dumps(quantiles))
    print(f"Cancelling, {slots} streams, {len(freed)} cancels, ms\n\n| | p50 | p90 | highest |\n|---|---|---|---|")
    for name, values in quantiles.items():
        print(f"| {name} | {values[0]:.2f} | {values[1]:.2f} | {values[2]:.2f} |")
    print(flush=True)


async def _round(client: AsyncClient, slots: int, number: int, times: tuple[list[float], ...]) -> None:
    freed, first, gaps = times
    random = Random(number)  # noqa: S311 - prompts

    def begin(tokens: int) -> AsyncGenerationStream[None]:
        prompt = RawText(prompt_text(prompt_ids(random, 64)))
        options = GenerateOptions(ignore_eos=True)
        return client.stream_generate(prompt, max_output_tokens=tokens, temperature=0, options=options)

    running = [begin(LONG) for _ in range(slots)]
    readers = [asyncio.create_task(_read(stream, gaps)) for stream in running]
    waiting = [asyncio.create_task(_wait(begin(SHORT))) for _ in range(CANCELS)]
    while not all(stream.text for stream in running):  # noqa: ASYNC110 - for the first deltas of all
        await asyncio.sleep(PAUSE)
    cancelled: list[float] = []
    for stream in running[:CANCELS]:
        cancelled.append(perf_counter())
        await stream.close()
        await asyncio.sleep(PAUSE)
    timings = await asyncio.gather(*waiting)
    for event, (arrival, queue, ttft) in zip(cancelled, sorted(timings), strict=True):
        freed.append(arrival - (ttft - queue) - event)
        first.append(ttft - queue)
    await asyncio.gather(*readers)


async def _read(stream: AsyncGenerationStream[None], gaps: list[float]) -> None:
    before: float | None = None
    with suppress(DohertyError):  # those that are cancelled
        async for _ in stream:
            now = perf_counter()
            if before is not None:
                gaps.append(now - before)
            before = now


async def _wait(stream: AsyncGenerationStream[None]) -> tuple[float, float, float]:
    """Returns the arrival of the first message, its time in the queue, and its time to the first token, in seconds."""
    arrival = 0.0
    async for _ in stream:
        arrival = arrival or perf_counter()
    timings = (await stream.result()).timings
    return arrival, timings.queue or 0.0, timings.time_to_first_token or 0.0
