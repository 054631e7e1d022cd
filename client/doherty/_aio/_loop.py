"""The event loop that runs, and what it asks of the running task."""

import asyncio

from doherty._core._errors import EventLoopError


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that runs.

    Raises:
        EventLoopError: None does.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise EventLoopError("An AsyncClient works on a running event loop only: use it in a coroutine.") from None


def task_is_cancelled() -> bool:
    """Tells whether a CancelledError is meant for the running task: gRPC also raises one for a cancelled call."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
