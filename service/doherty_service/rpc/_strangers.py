"""What callers without an accepted key may hold of the services that are open to them."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from doherty_service._errors import OverloadedError

if TYPE_CHECKING:
    from collections import Counter

_MOST_ON_A_CONNECTION = 64
_MOST_OPEN = 1024
"""About 25 kB each."""
_MOST_ARRIVING = 32
"""Messages, each of which may have as many bytes as any message before it is found to be too large."""
_RETRY_SECONDS = 1.0


class Strangers:
    """The RPCs of callers without an accepted key, bounded for each connection and altogether.

    Where there is no room, the connection that has most RPCs gives up its oldest: so whoever holds much cannot keep out
    those who come for a moment, as health checks do.
    """

    def __init__(self, refusals: "Counter[str]") -> None:
        """Those that are refused or given up are counted in `refusals`."""
        self._refusals = refusals
        self._open = _Held(_MOST_OPEN)
        self._arriving = _Held(_MOST_ARRIVING)

    @contextmanager
    def calling(self, connection: str) -> Iterator["Stranger"]:
        """Counts the running RPC as open.

        Raises:
            OverloadedError: its connection has too many, or it had to make room for another one.
        """
        if self._open.count(connection) >= _MOST_ON_A_CONNECTION:
            raise self._refusal(f"a connection may have {_MOST_ON_A_CONNECTION} calls without a key")
        with self._held(self._open, connection):
            yield Stranger(self, connection)

    @contextmanager
    def sending(self, connection: str) -> Iterator[None]:
        """Counts the running RPC as one whose message is on its way; raises as `calling` does."""
        with self._held(self._arriving, connection):
            yield

    @contextmanager
    def _held(self, held: "_Held", connection: str) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("gRPC runs each RPC in a task")
        held.add(connection, task)
        try:
            yield
        except asyncio.CancelledError:
            if held.has(connection, task) or task.uncancel():
                raise  # its caller has left
            raise self._refusal("there are too many calls without a key") from None
        finally:
            held.remove(connection, task)

    def _refusal(self, message: str) -> OverloadedError:
        self._refusals["TOO_MANY_CALLS"] += 1
        return OverloadedError("TOO_MANY_CALLS", message, retry_after=_RETRY_SECONDS)


class Stranger:
    """A caller without a key, and one of its RPCs."""

    def __init__(self, strangers: Strangers, connection: str) -> None:
        self._strangers = strangers
        self._connection = connection

    def sending(self) -> AbstractContextManager[None]:
        """Counts the RPC as one whose message is on its way; raises as `Strangers.calling` does."""
        return self._strangers.sending(self._connection)


class _Held:
    """Tasks of RPCs by their connections, the oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._all = 0
        self._tasks: dict[str, dict[asyncio.Task[Any], None]] = {}

    def count(self, connection: str) -> int:
        return len(self._tasks.get(connection, ()))

    def has(self, connection: str, task: asyncio.Task[Any]) -> bool:
        return task in self._tasks.get(connection, ())

    def add(self, connection: str, task: asyncio.Task[Any]) -> None:
        """Adds a task, and cancels another one where there is no room."""
        if self._all >= self._most:
            largest = max(self._tasks, key=self.count)
            oldest = next(iter(self._tasks[largest]))
            self.remove(largest, oldest)
            oldest.cancel()
        self._tasks.setdefault(connection, {})[task] = None
        self._all += 1

    def remove(self, connection: str, task: asyncio.Task[Any]) -> None:
        """Removes a task, unless it had to make room."""
        tasks = self._tasks.get(connection, {})
        if task not in tasks:
            return
        del tasks[task]
        self._all -= 1
        if not tasks:
            del self._tasks[connection]
