"""The running event loop and task."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from doherty._core._errors import EventLoopError

if TYPE_CHECKING:
    import grpc.aio

    from doherty._aio._tasks import Tasks

ResultT = TypeVar("ResultT")


def running_loop() -> asyncio.AbstractEventLoop:
    """Returns the running event loop.

    Raises:
        EventLoopError: No event loop runs.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise EventLoopError("An AsyncClient works on a running event loop only: use it in a coroutine.") from None


def cancels_task(error: BaseException) -> bool:
    """Whether an error cancels the running task. gRPC also raises CancelledError for a call that was cancelled."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def wait_for_reply(call: "grpc.aio.UnaryUnaryCall[Any, ResultT]") -> ResultT:
    """Waits for the reply of a call that has no interceptors.

    gRPC awaits tasks of its own. When the running task is cancelled, it gets the CancelledError of such a task, which
    lacks the message with which `cancel` was called. By that message anyio knows which of its scopes was cancelled.
    """
    ended = asyncio.get_running_loop().create_future()
    # gRPC does not report the end of a call that it could not start. But it runs each call in a task, which ends.
    running: Any = getattr(call, "_invocation_task", call)
    running.add_done_callback(partial(_set_result, ended))
    try:
        await ended
    except asyncio.CancelledError:
        call.cancel()
        raise
    return await call


async def wait_for_intercepted(call: Awaitable[ResultT], tasks: "Tasks") -> ResultT:
    """Does the same for a call with interceptors. gRPC does not report its end if one of them raises an exception."""
    waiting = tasks.start(_wait_for(call))
    try:
        await asyncio.wait((waiting,))
    except asyncio.CancelledError:
        waiting.cancel()
        raise
    return waiting.result()


async def _wait_for(call: Awaitable[ResultT]) -> ResultT:
    return await call


def _set_result(future: asyncio.Future[None], _: object) -> None:
    if not future.done():
        future.set_result(None)
