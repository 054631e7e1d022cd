"""An alarm, which ends waits that gRPC would not end."""

import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from weakref import WeakMethod


class Alarm:
    """Calls a method from another thread when a block of code takes too long.

    The thread starts with the first block. It ends when `stop` is called or the method's object is garbage-collected.
    """

    def __init__(self, ring: Callable[[], None], alarms: "Alarms") -> None:
        """`ring` must be a bound method. Only a weak reference to its object is kept."""
        self._alarms = alarms
        self._ring = WeakMethod(ring)
        # Only the lock itself is used in `with`: a Ctrl-C on the way into a Condition can leave that locked.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._rings_at: float | None = None
        self._wakes_at: float | None = None
        self._stopped = False

    def limit(self, seconds: float | None) -> "Alarm":
        """Limits the duration of a `with` block: if the block takes longer, `ring` is called. None means no limit."""
        if seconds is None:
            return self
        with self._lock:
            self._rings_at = monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._wait, name="doherty-alarm", daemon=True)
                self._alarms.add(self)
                self._thread.start()
            elif self._wakes_at is None or self._rings_at < self._wakes_at:
                # Otherwise the thread wakes up early enough, as for nearly every token.
                self._changed.notify()
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._rings_at = None

    def stop(self) -> None:
        """Ends the thread. The alarm does not ring again."""
        with self._lock:
            self._stopped = True
            self._changed.notify()

    def join(self) -> None:
        """Returns when the thread of an alarm that was stopped has ended."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _wait(self) -> None:
        try:
            self._wait_and_ring()
        finally:
            self._alarms.remove(self)

    def _wait_and_ring(self) -> None:
        with self._lock:
            while not self._stopped:
                # Read `_rings_at` only once, because `__exit__` changes it without the lock.
                self._wakes_at = rings_at = self._rings_at
                now = monotonic()
                if rings_at is not None and rings_at <= now:
                    break
                self._changed.wait(None if rings_at is None else rings_at - now)
        if not self._stopped and (ring := self._ring()) is not None:
            ring()


class Alarms:
    """The alarms of a client whose threads are running."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Alarm] = set()

    def add(self, alarm: Alarm) -> None:
        """Adds an alarm whose thread is about to start."""
        with self._lock:
            self._running.add(alarm)

    def remove(self, alarm: Alarm) -> None:
        """Removes an alarm whose thread is about to end."""
        with self._lock:
            self._running.discard(alarm)

    def stop(self) -> None:
        """Stops all alarms, and returns when their threads have ended."""
        with self._lock:
            running = tuple(self._running)
        for alarm in running:
            alarm.stop()
            alarm.join()
