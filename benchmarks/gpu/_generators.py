"""The load generators, and how they are set on a side together."""

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

MOST = 8
STREAMS_EACH = 8
"""Of one generator, at the most: so 64 streams come from eight processes, and eight share a MultiplexGenerate."""
_HEAD_START = 0.05
"""Seconds between the order to begin and the beginning, so that all generators hear of it before."""
_LARGEST_LINE = 1 << 26
_LOAD = Path(__file__).with_name("_load.py")

Lines = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a cell's requests to one side."""

    records: list[Record]
    seconds: float
    """From the first request to the last token."""
    tokens: int
    server_cpu: float | None
    """Processor seconds of the server's own process; None in process, where the load is in it too."""
    engine_cpu: float
    """Those of the processes below it."""


class Generators:
    """Processes that make load; started once, for all sides."""

    def __init__(self) -> None:
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        for _ in range(MOST):
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
        """Makes an order's requests, shared among as many generators as its streams take.

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
            await _tell_all(lines)  # that they are ready
            before = _used(side)
            start_at = time.perf_counter() + _HEAD_START
            for _, writer in lines:
                await send(writer, {"start_at": start_at})
            records = [record for told in await _tell_all(lines) for record in as_records(told)]
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
    told = await asyncio.gather(*(receive(reader) for reader, _ in lines))
    for one in told:
        if "error" in one:
            raise RuntimeError(one["error"])
    return told
