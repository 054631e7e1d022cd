"""Runs the load generators."""

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from _processes import descendants, generator_cores, processor_seconds
from _records import Order, Record, as_records, receive, send
from _sides import Side

MAX_GENERATORS = 8
STREAMS_EACH = 8
"""Maximum number of streams of a generator: 64 streams come from eight processes; eight share a MultiplexGenerate."""
_HEAD_START = 0.05
"""Seconds between an order and its start, so that all generators receive it before."""
_LARGEST_LINE = 1 << 26
_LOAD = Path(__file__).with_name("_load.py")

Lines = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of a cell's requests to one server."""

    records: list[Record]
    seconds: float
    """From the first request to the last token."""
    tokens: int
    server_cpu: float | None
    """CPU seconds of the server's own process; None without a server, because the load runs in that process, too."""
    engine_cpu: float
    """CPU seconds of its child processes."""


class Generators:
    """The load generators. They are started once, for all servers."""

    def __init__(self) -> None:
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        for _ in range(MAX_GENERATORS):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(_LOAD),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LARGEST_LINE,
            )
            os.sched_setaffinity(process.pid, generator_cores())
            self._processes.append(process)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    async def measure(self, side: Side, order: Order) -> Measured:
        """Makes an order's requests, distributed over as many generators as its streams need.

        Raises:
            RuntimeError: a request failed.
        """
        async with AsyncExitStack() as stack:
            if side.name == "inprocess":
                lines = [await asyncio.open_unix_connection(side.target, limit=_LARGEST_LINE)]
                stack.callback(lines[0][1].close)
            else:
                lines = self._lines(max(1, order.streams // STREAMS_EACH))
            for place, (_, writer) in enumerate(lines):
                part = replace(
                    order,
                    target=side.target,
                    streams=order.streams // len(lines),
                    requests=order.requests // len(lines),
                    seed=order.seed + 1000 * place,
                )
                await send(writer, asdict(part))
            await _tell_all(lines)  # the reports that they are ready
            before = _used(side)
            start_at = time.perf_counter() + _HEAD_START
            for _, writer in lines:
                await send(writer, {"start_at": start_at})
            records = [record for reply in await _tell_all(lines) for record in as_records(reply)]
            after = _used(side)
        ended = max(record.arrivals[-1] for record in records)
        return Measured(
            records,
            ended - min(record.begun for record in records),
            order.tokens * len(records),
            None if side.name == "inprocess" else after[0] - before[0],
            after[1] - before[1],
        )

    def _lines(self, number: int) -> list[Lines]:
        return [
            (process.stdout, process.stdin)
            for process in self._processes[:number]
            if process.stdout is not None and process.stdin is not None
        ]


def _used(side: Side) -> tuple[float, float]:
    return processor_seconds(side.pid), sum(map(processor_seconds, descendants(side.pid)))


async def _tell_all(lines: list[Lines]) -> list[Any]:
    replies = await asyncio.gather(*(receive(reader) for reader, _ in lines))
    for reply in replies:
        if "error" in reply:
            raise RuntimeError(reply["error"])
    return replies
