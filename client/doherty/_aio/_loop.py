"""The running event loop and task."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from doherty._core._errors import EventLoopError

ResultT = TypeVar("ResultT")


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


async def wait_for_call(call: Awaitable[ResultT]) -> ResultT:
    """Waits for what gRPC returns.

    gRPC awaits tasks of its own. When the running task is cancelled, it gets the CancelledError of such a task, which
    lacks the message with which `cancel` was called. By that message anyio knows which of its scopes was cancelled.
    """
    waiting = asyncio.ensure_future(call)
    try:
        await asyncio.wait((waiting,))
    except asyncio.CancelledError:
        waiting.cancel()
        raise
    return waiting.result()
