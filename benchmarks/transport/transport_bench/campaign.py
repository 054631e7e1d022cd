"""Runs the servers in turn, window by window, for each load."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transport_bench.build import Programs
from transport_bench.loads import Load
from transport_bench.rows import Kind, Row
from transport_bench.server import started
from transport_bench.window import Figures, measure, measure_engine


@dataclass(frozen=True)
class Window:
    """The figures of one window."""

    load: str
    row: str
    round: int
    figures: Figures


def run_load(load: Load, rows: Sequence[Row], rounds: int, seconds: float, programs: Programs) -> Iterator[Window]:
    """Runs one load. Every round has one window per row, and begins with another row.

    A first round warms the servers up and is not counted.

    Raises:
        BenchmarkError: A server or the load generator failed.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        measures = [
            (row.name, stack.enter_context(_measuring(row, load, folder / str(index), programs)))
            for index, row in enumerate(rows)
        ]
        for _, measure_row in measures:
            measure_row(seconds / 2)
        for number in range(rounds):
            first = number % len(measures)
            for name, measure_row in measures[first:] + measures[:first]:
                yield Window(load.name, name, number, measure_row(seconds))


@contextmanager
def _measuring(row: Row, load: Load, folder: Path, programs: Programs) -> Iterator[Callable[[float], Figures]]:
    """Starts a server, and returns a function that runs a window of a given length."""
    if row.kind is Kind.ENGINE:
        yield partial(measure_engine, folder, load)
    else:
        with started(row, load, folder, programs) as server:
            yield partial(measure, server, row, load, programs)
