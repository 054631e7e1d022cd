"""Shows the progress of a load on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from doherty.cli._console import make_console
from doherty.cli._echo import silenced
from doherty.cli._load._run import LoadOptions
from doherty.cli._load._sample import Sample


@contextmanager
def progress(load: LoadOptions, targets: int) -> Iterator[Callable[[Sample], None]]:
    """Shows a progress bar on stderr if that is a terminal. Yields a function to call when a request has ended."""
    console = make_console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    bar = Progress(
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        # Drawing uses the same processor as measuring.
        refresh_per_second=4,
    )
    with silenced(), bar:
        yield _Bar(bar, load, targets).advance


class _Bar:
    def __init__(self, progress: Progress, load: LoadOptions, targets: int) -> None:
        self._progress = progress
        self._load = load
        self._requests = load.requests * targets if load.requests else None
        self._done = self._failed = self._tokens = 0
        self._started = perf_counter()
        self._task: TaskID = progress.add_task("", total=1)

    def advance(self, sample: Sample) -> None:
        """Counts one more request."""
        self._done += 1
        self._failed += sample.failure is not None
        self._tokens += sample.output_tokens
        elapsed = perf_counter() - self._started
        shares = [self._done / self._requests if self._requests else 0.0]
        if self._load.duration:
            shares.append(elapsed / self._load.duration)
        count = f"{self._done}/{self._requests}" if self._requests else f"{self._done}"
        failed = f", {self._failed} failed" if self._failed else ""
        self._progress.update(
            self._task,
            completed=min(1.0, max(shares)),
            description=f"{count} requests{failed}, {self._tokens / elapsed:.0f} tokens/s",
        )
