"""How long a slot stays taken after its caller has gone, on a server that is full.

All slots are taken, and more requests wait. One request after the other is closed by its caller; who waits first gets
the slot, and its first message tells when: its arrival, less the time that the server says it took from the slot to the
first token. That overstates by the message's way back. The slot that is told of is the server's; vLLM takes the request
out before its next step, so the new one's first token is in the step after: its time from the slot to the first token
is printed, too.
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
"""Seconds between two of them: some steps."""


async def measure_cancel(sides: list[Side], out: Path) -> None:
    """Prints what was measured."""
    (side,) = [side for side in sides if side.name == "doherty"]
    freed: list[float] = []
    first: list[float] = []
    gaps: list[float] = []
    async with AsyncClient(side.target) as client:
        slots = (await client.model()).limits.slots
        for number in range(ROUNDS):
            await _round(client, slots, number, (freed, first, gaps))
    rows = {"cancel to free slot": freed, "slot to first token": first, "gap between the steps of others": gaps}
    found = {name: [percentile(values, share) * 1e3 for share in (0.5, 0.9, 1.0)] for name, values in rows.items()}
    (out / "cancel.json").write_text(json.dumps(found))
    print(f"Cancelling, {slots} streams, {len(freed)} cancels, ms\n\n| | p50 | p90 | highest |\n|---|---|---|---|")
    for name, values in found.items():
        print(f"| {name} | {values[0]:.2f} | {values[1]:.2f} | {values[2]:.2f} |")
    print(flush=True)


async def _round(client: AsyncClient, slots: int, number: int, found: tuple[list[float], ...]) -> None:
    freed, first, gaps = found
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
    told = await asyncio.gather(*waiting)
    for event, (arrival, queue, ttft) in zip(cancelled, sorted(told), strict=True):
        freed.append(arrival - (ttft - queue) - event)
        first.append(ttft - queue)
    await asyncio.gather(*readers)


async def _read(stream: AsyncGenerationStream[None], gaps: list[float]) -> None:
    before: float | None = None
    with suppress(DohertyError):  # those that are closed
        async for _ in stream:
            now = perf_counter()
            if before is not None:
                gaps.append(now - before)
            before = now


async def _wait(stream: AsyncGenerationStream[None]) -> tuple[float, float, float]:
    """When its first message came, how long the server let it wait, and how long its first token took; in seconds."""
    arrival = 0.0
    async for _ in stream:
        arrival = arrival or perf_counter()
    timings = (await stream.result()).timings
    return arrival, timings.queue or 0.0, timings.time_to_first_token or 0.0
