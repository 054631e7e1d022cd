"""Runs the servers in turns, window by window, load by load."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from transport_bench.build import Programs
from transport_bench.loads import Load
from transport_bench.rows import Row
from transport_bench.server import started
from transport_bench.window import Figures, measure


@dataclass(frozen=True)
class Window:
    """The figures of one window."""

    load: str
    row: str
    round: int
    figures: Figures


def run_load(load: Load, rows: Sequence[Row], rounds: int, seconds: float, programs: Programs) -> Iterator[Window]:
    """Runs one load: in every round a window of each row, and another one first each time.

    A round before these warms the servers up, and is not counted.

    Raises:
        BenchmarkError: something failed.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        servers = [
            (row, stack.enter_context(started(row, load, folder / str(index), programs)))
            for index, row in enumerate(rows)
        ]
        for row, server in servers:
            measure(server, row, load, seconds / 2, programs)
        for number in range(rounds):
            first = number % len(servers)
            for row, server in servers[first:] + servers[:first]:
                yield Window(load.name, row.name, number, measure(server, row, load, seconds, programs))
