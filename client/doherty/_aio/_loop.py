"""The running event loop and task."""

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


def cancels_task(error: BaseException) -> bool:
    """Whether an error ends the running task. gRPC also raises CancelledError for a call that was cancelled."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
