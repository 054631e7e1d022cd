"""Passes outputs from the requests' threads to the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock

from doherty_engine._outputs import StepOutput


class OutputBatcher:
    """Collects what one llama.cpp step produces for all requests into one callback on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Sequence[StepOutput]], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._lock = Lock()
        self._waiting: list[StepOutput] = []

    def put(self, output: StepOutput) -> None:
        """Adds an output; may be called from any thread."""
        with self._lock:
            self._waiting.append(output)
            is_first = len(self._waiting) == 1
        if is_first:
            self._loop.call_soon_threadsafe(self.flush)

    def flush(self) -> None:
        """Delivers all waiting outputs; must be called on the event loop."""
        with self._lock:
            outputs, self._waiting = self._waiting, []
        if outputs:
            self._deliver(outputs)
