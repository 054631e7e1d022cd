"""Bounds what callers without a valid key may occupy of the services that require no key."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from doherty_service._errors import OverloadedError

_MAX_ON_A_CONNECTION = 64
_MAX_REFUSED_ON_A_CONNECTION = 64
"""A connection is closed after this many calls beyond those that may be open. grpc.aio hands out calls in the order of
their arrival, so the calls of other connections wait while these are refused."""
_MAX_OPEN = 1024
"""About 25 kB each."""
_MAX_RECEIVING = 32
"""Messages being received. Each may have the maximum message size before it is refused."""
_RETRY_SECONDS = 1.0


class UnauthenticatedCalls:
    """The RPCs of callers without a valid key, limited per connection and in total.

    If there is no room, the oldest RPC of the connection with the most RPCs is ended. So a caller with many RPCs cannot
    keep out short ones such as health checks.
    """

    def __init__(self, refusals: Counter[str], close: Callable[[str], None]) -> None:
        """`refusals` counts RPCs that are refused or ended. `close` closes a connection, unless a caller has a key."""
        self._refusals = refusals
        self._close = close
        self._refused: Counter[str] = Counter()
        """By connection: how many RPCs were refused since it last had no open RPC."""
        self._open = _Tasks(_MAX_OPEN)
        self._receiving = _Tasks(_MAX_RECEIVING)

    @contextmanager
    def track_rpc(self, connection: str) -> Iterator["UnauthenticatedCall"]:
        """Counts the current RPC as open until the end of the block.

        Raises:
            OverloadedError: Its connection has too many RPCs, or it had to make room for another one.
        """
        if self._open.count(connection) >= _MAX_ON_A_CONNECTION:
            self._refused[connection] += 1
            if self._refused[connection] % _MAX_REFUSED_ON_A_CONNECTION == 0:
                self._close(connection)
            raise self._refusal(f"a connection may have {_MAX_ON_A_CONNECTION} calls without a key")
        try:
            with self._track(self._open, connection):
                yield UnauthenticatedCall(self, connection)
        finally:
            if not self._open.count(connection):
                self._refused.pop(connection, None)

    @contextmanager
    def track_message(self, connection: str) -> Iterator[None]:
        """Counts the current RPC as receiving a message until the end of the block.

        Raises:
            OverloadedError: It had to make room for another RPC that receives a message.
        """
        with self._track(self._receiving, connection):
            yield

    @contextmanager
    def _track(self, tasks: "_Tasks", connection: str) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("gRPC runs each RPC in a task")
        tasks.add(connection, task)
        try:
            yield
        except asyncio.CancelledError:
            if tasks.has(connection, task) or task.uncancel():
                raise  # It was not `_Tasks.add` that cancelled the RPC, or not only: the caller has left.
            raise self._refusal("there are too many calls without a key") from None
        finally:
            tasks.remove(connection, task)

    def _refusal(self, message: str) -> OverloadedError:
        self._refusals["TOO_MANY_CALLS"] += 1
        return OverloadedError("TOO_MANY_CALLS", message, retry_after=_RETRY_SECONDS)


class UnauthenticatedCall:
    """One RPC of a caller without a valid key."""

    def __init__(self, calls: UnauthenticatedCalls, connection: str) -> None:
        self._calls = calls
        self._connection = connection

    def track_message(self) -> AbstractContextManager[None]:
        """Counts the RPC as receiving a message until the end of the block.

        Raises:
            OverloadedError: It had to make room for another RPC that receives a message.
        """
        return self._calls.track_message(self._connection)


class _Tasks:
    """The tasks of RPCs by connection, the oldest first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._all = 0
        self._tasks: dict[str, dict[asyncio.Task[Any], None]] = {}

    def count(self, connection: str) -> int:
        return len(self._tasks.get(connection, ()))

    def has(self, connection: str, task: asyncio.Task[Any]) -> bool:
        return task in self._tasks.get(connection, ())

    def add(self, connection: str, task: asyncio.Task[Any]) -> None:
        """Adds a task; if there is no room, cancels another one."""
        if self._all >= self._limit:
            largest = max(self._tasks, key=self.count)
            oldest = next(iter(self._tasks[largest]))
            self.remove(largest, oldest)
            oldest.cancel()
        self._tasks.setdefault(connection, {})[task] = None
        self._all += 1

    def remove(self, connection: str, task: asyncio.Task[Any]) -> None:
        """Removes a task, unless `add` has already removed it to make room."""
        tasks = self._tasks.get(connection, {})
        if task not in tasks:
            return
        del tasks[task]
        self._all -= 1
        if not tasks:
            del self._tasks[connection]
