"""Carries outputs from the threads to the sink on the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock

from doherty_engine._outputs import StepOutput


class Outbox:
    """Gathers what one step of llama.cpp produces for all requests into one call on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Sequence[StepOutput]], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._lock = Lock()
        self._waiting: list[StepOutput] = []

    def put(self, output: StepOutput) -> None:
        """Takes an output, from any thread."""
        with self._lock:
            self._waiting.append(output)
            is_first = len(self._waiting) == 1
        if is_first:
            self._loop.call_soon_threadsafe(self.flush)

    def flush(self) -> None:
        """Delivers what is waiting; on the loop only."""
        with self._lock:
            outputs, self._waiting = self._waiting, []
        if outputs:
            self._deliver(outputs)
