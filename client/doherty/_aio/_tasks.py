"""The tasks that a client has started on its event loop."""

import asyncio
import gc
import inspect
import types
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc.aio

ResultT = TypeVar("ResultT")

_END_TIMEOUT: Final = 5.0
"""Maximum time in seconds to wait for cancelled tasks, because a thread cannot be cancelled, and gRPC may be busy."""

_GRPC: Final = str(Path(grpc.aio.__file__).parent)

_SHARED: Final = (type, types.ModuleType, types.FunctionType)
"""The types through which a coroutine refers to objects that are not its own."""

_HOPS: Final = 4
"""The path from the coroutine of a gRPC task through its call to its channel."""


class Tasks:
    """The running tasks of a client, without those of gRPC."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._threads: set[asyncio.Future[None]] = set()
        """One future for each call in a thread. It is done when the thread has finished."""

    def start(self, work: Coroutine[Any, Any, ResultT]) -> "asyncio.Task[ResultT]":
        """Starts a task."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def run_in_thread(self, function: Callable[[], ResultT]) -> ResultT:
        """Calls a function in a thread. A cancelled caller does not wait for the thread, but `end` does."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        begun = False

        def call() -> ResultT:
            nonlocal begun
            begun = True
            try:
                return function()
            finally:
                with suppress(RuntimeError):  # the loop was closed
                    loop.call_soon_threadsafe(ended.cancel)

        self._threads.add(ended)
        ended.add_done_callback(self._threads.discard)
        try:
            return await asyncio.to_thread(call)
        finally:
            if not begun:
                ended.cancel()

    async def end(self, channels: "Iterable[grpc.aio.Channel]") -> None:
        """Cancels the tasks, and returns when they and gRPC's tasks for these closed channels have ended."""
        this = asyncio.current_task()  # the callable of a key may close the client
        running = self._running - {this}
        for task in running:
            task.cancel()
        ending = {*running, *self._threads, *_tasks_of_grpc(channels)} - {this}
        if ending:
            await asyncio.wait(ending, timeout=_END_TIMEOUT)


def _tasks_of_grpc(channels: "Iterable[grpc.aio.Channel]") -> "set[asyncio.Task[Any]]":
    """Returns the tasks that gRPC runs for these channels.

    gRPC keeps no list of them, and ends them some milliseconds after their calls. So this looks for tasks whose
    coroutines refer to one of the channels.
    """
    cores = {id(core) for channel in channels if (core := getattr(channel, "_channel", None)) is not None}
    return {task for task in asyncio.all_tasks() if _refers_to(task.get_coro(), cores)}


def _refers_to(coroutine: object, cores: set[int]) -> bool:
    """Whether a coroutine of gRPC refers to one of the objects with these ids."""
    if inspect.iscoroutine(coroutine) and not coroutine.cr_code.co_filename.startswith(_GRPC):
        return False
    objects: list[object] = [coroutine]
    seen: set[int] = set()
    for _ in range(_HOPS):
        referents = gc.get_referents(*objects)
        if any(id(each) in cores for each in referents):
            return True
        objects = [each for each in referents if id(each) not in seen and not isinstance(each, _SHARED)]
        seen.update(map(id, objects))
    return False
