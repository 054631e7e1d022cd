"""The answers that a fake server is working on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc


class Calls:
    """The answers in progress. Its methods can be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: set[threading.Event] = set()
        self._when_closed: set[Callable[[], None]] = set()
        self.answers = 0
        """The number of answers that have ended."""
        self.closed = False
        """Whether the server has died."""

    @property
    def running(self) -> int:
        """The number of answers in progress."""
        return len(self._running)

    def begin(self) -> threading.Event:
        """Counts an answer until `end`. Returns an event that ends the answer early; `close` sets it."""
        ended = threading.Event()
        with self._changed:
            self._running.add(ended)
            if self.closed:
                ended.set()
        return ended

    def end(self, ended: threading.Event) -> None:
        """Counts an answer as ended."""
        with self._changed:
            self._running.discard(ended)
            self.answers += 1
            self._changed.notify_all()

    @contextmanager
    def running_call(self, context: grpc.ServicerContext) -> Iterator[threading.Event]:
        """Counts an answer during the block; the event is also set when its caller leaves."""
        ended = self.begin()
        try:
            if not context.add_callback(ended.set):
                ended.set()
            yield ended
        finally:
            self.end(ended)

    @contextmanager
    def running_rpc(self, context: grpc.ServicerContext, cut_off: Callable[[], None]) -> Iterator[None]:
        """Calls `cut_off` if the caller leaves or the server dies during the block."""
        with self._changed:
            self._when_closed.add(cut_off)
            gone = self.closed
        try:
            if not context.add_callback(cut_off) or gone:
                cut_off()
            yield
        finally:
            with self._changed:
                self._when_closed.discard(cut_off)

    def close(self) -> None:
        """Ends all answers, including those that begin later."""
        with self._changed:
            self.closed = True
            for ended in self._running:
                ended.set()
            when_closed = tuple(self._when_closed)
        for cut_off in when_closed:
            cut_off()

    def wait_idle(self, seconds: float) -> None:
        """Waits until no answer is in progress.

        Raises:
            TimeoutError: An answer is still in progress.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._running, seconds):
                raise TimeoutError(f"{len(self._running)} answers are still in progress after {seconds:g} s")
