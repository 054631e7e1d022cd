"""Asking servers for their health, and waiting for one that serves."""

import threading
from typing import TYPE_CHECKING

import grpc

from doherty._core._errors import DohertyError, RpcError
from doherty._core._health import REQUEST, Health, Turns, Wait, health_from_wire

if TYPE_CHECKING:
    from doherty._core._balance import Target
    from doherty._core._retry import Course
    from doherty._sync._pool import Pool


def check_health(pool: "Pool", timeout: float | None) -> Health:
    """Asks the targets one after the other until one serves; if none does, returns what one of them said.

    Raises:
        DohertyError: None answers, or the client is closed.
    """
    turns = Turns(timeout, len(pool.settings.targets))
    said: Health | None = None
    failure: RpcError | None = None
    for target in pool.dispatch.targets:
        try:
            said = _check(pool, target, pool.dispatch.one_attempt(turns.seconds()))
        except RpcError as error:
            failure = error
        if said is Health.SERVING:
            pool.dispatch.targets.worked(target)
            break
    if said is None and failure is not None:
        raise failure
    return said or Health.UNKNOWN


def wait_ready(pool: "Pool", timeout: float | None) -> None:
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
            if wait.saw(check_health(pool, wait.check_seconds())):
                return
        except RpcError as error:
            wait.failed(error)
        pool.pause(wait.pause(connection.connectivity), threading.Event())


def _check(pool: "Pool", target: "Target", course: "Course") -> Health:
    pool.dispatch.check_usable()
    check = pool.connection(target).health()
    try:
        return health_from_wire(check(REQUEST, timeout=course.remaining(), metadata=pool.settings.metadata))
    except (grpc.RpcError, ValueError) as error:
        failure = pool.after(error, target, course)
        if isinstance(failure, DohertyError):
            raise failure from error
        raise
