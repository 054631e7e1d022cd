"""Runs the servers in turns, window by window, load by load."""

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
    """Runs one load: in every round a window of each row, and another one first each time.

    A round before these warms the servers up, and is not counted.

    Raises:
        BenchmarkError: something failed.
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
    """Gives what runs a window of so many seconds."""
    if row.kind is Kind.ENGINE:
        yield partial(measure_engine, folder, load)
    else:
        with started(row, load, folder, programs) as server:
            yield partial(measure, server, row, load, programs)
