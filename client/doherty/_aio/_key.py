"""Asks for an API key without blocking the event loop."""

import asyncio
import inspect
from typing import TYPE_CHECKING

import grpc

from doherty._core._actions import FetchKey
from doherty._core._errors import DeadlineExceededError

if TYPE_CHECKING:
    from doherty._aio._tasks import Tasks


async def fetch_key(action: FetchKey, tasks: "Tasks") -> object:
    """Returns the result of the callable, or the exception that it raised."""
    limit = asyncio.timeout(action.timeout)
    try:
        async with limit:
            if inspect.iscoroutinefunction(action.source):
                return await action.source()
            key = await tasks.run_in_thread(action.source)
            return await key if inspect.isawaitable(key) else key
    except Exception as error:  # noqa: BLE001 - the call raises the returned error
        if not limit.expired():
            return error
        message = f"api_key= did not return a key within the call's {action.timeout:.3g} s"
        return DeadlineExceededError(message, code=grpc.StatusCode.DEADLINE_EXCEEDED)
