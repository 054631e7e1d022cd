"""Asking servers for their health, and waiting for one that serves."""

# ruff: noqa: ASYNC109 - the timeout is the call's deadline, which gRPC keeps and the server gets to know

import asyncio
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from doherty._aio._loop import task_is_cancelled
from doherty._core._errors import DohertyError, RpcError
from doherty._core._health import REQUEST, Health, Turns, Wait, health_from_wire

if TYPE_CHECKING:
    from doherty._aio._pool import AsyncPool
    from doherty._core._balance import Target
    from doherty._core._retry import Course


async def check_health(pool: "AsyncPool", timeout: float | None) -> Health:
    """Asks the targets one after the other until one serves; if none does, returns what one of them said.

    Raises:
        DohertyError: None answers, or the client is closed.
    """
    turns = Turns(timeout, len(pool.settings.targets))
    said: Health | None = None
    failure: RpcError | None = None
    for target in pool.dispatch.targets:
        try:
            said = await _check(pool, target, pool.dispatch.one_attempt(turns.seconds()))
        except RpcError as error:
            failure = error
        if said is Health.SERVING:
            pool.dispatch.targets.worked(target)
            break
    if said is None and failure is not None:
        raise failure
    return said or Health.UNKNOWN


async def wait_ready(pool: "AsyncPool", timeout: float | None) -> None:
    """Returns when one of the targets serves.

    Raises:
        DeadlineExceededError: None did in time.
        DohertyError: They have no health service, or the client was closed.
    """
    names = pool.settings.targets
    wait = Wait(", ".join(names), timeout)
    connection = pool.connection(next(iter(pool.dispatch.targets)))
    while True:
        try:
            if wait.saw(await check_health(pool, wait.check_seconds())):
                return
        except RpcError as error:
            wait.failed(error)
        await pool.pause(wait.pause(connection.connectivity), asyncio.Event())


async def _check(pool: "AsyncPool", target: "Target", course: "Course") -> Health:
    pool.dispatch.check_usable()
    check = pool.connection(target).health()
    try:
        return health_from_wire(await check(REQUEST, timeout=course.remaining(), metadata=pool.settings.metadata))
    except (asyncio.CancelledError, grpc.RpcError, grpc.aio.UsageError) as error:
        if isinstance(error, asyncio.CancelledError) and task_is_cancelled():
            raise
        failure = pool.after(error, target, course)
        if isinstance(failure, DohertyError):
            raise failure from error
        raise
