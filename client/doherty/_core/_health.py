"""Checks the health of servers, and waits until one is ready."""

from collections.abc import Callable
from enum import StrEnum
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from doherty._core._actions import Actions, Pause
from doherty._core._errors import (
    CancelledByServerError,
    DeadlineExceededError,
    DohertyError,
    RpcError,
    UnavailableError,
)
from doherty._core._obstacle import MISTAKES
from doherty._core._settings import choose_timeout, whose_timeout
from doherty._core._settling import HEALTH_REQUEST, settling_seconds
from doherty.v1.model_pb2 import GetModelRequest, GetModelResponse

if TYPE_CHECKING:
    from doherty._core._balance import Target
    from doherty._core._dispatch import Dispatch
    from doherty._core._retry import CallAttempts
    from doherty._core._settings import Timeout

CHECK: Final = "/grpc.health.v1.Health/Check"
"""The unary method of grpc.health.v1."""

# The SDK does not need the package grpcio-health-checking: a HealthCheckResponse, whose only field is an enum with the
# number 1, has the same bytes as an Int32Value, and a HealthCheckRequest, whose only field is a string with the
# number 1, has those of a StringValue. In a process with that package, a second .proto file of the same name would be
# an error of protobuf.
encode_service: Final[Callable[[StringValue], bytes]] = StringValue.SerializeToString
decode_status: Final = Int32Value.FromString

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
_LONGEST_CHECK: Final = 5.0


class Health(StrEnum):
    """The health that a server reports."""

    SERVING = "SERVING"
    """The server accepts requests."""
    NOT_SERVING = "NOT_SERVING"
    """The server does not accept requests: it is loading its model, is shutting down, or its engine failed."""
    UNKNOWN = "UNKNOWN"
    """The server does not report its health."""


def health_from_wire(reply: Int32Value) -> Health:
    """Returns the health in a reply."""
    return {1: Health.SERVING, 2: Health.NOT_SERVING}.get(reply.value, Health.UNKNOWN)


def check_health(dispatch: "Dispatch", *, timeout: "Timeout", accept_model: bool = False) -> Actions[Health]:
    """Checks the targets one after the other until one serves. If none does, returns the health of the last one.

    Args:
        dispatch: The dispatch of the client.
        timeout: The timeout of all checks together.
        accept_model: Whether a server without a health service counts as serving if it answers GetModel.

    Raises:
        DohertyError: No target answered, or the client is closed.
    """
    seconds = choose_timeout(timeout, dispatch.settings.timeout)
    ends_at = None if seconds is None else monotonic() + seconds
    targets = tuple(dispatch.targets)
    whose = whose_timeout(timeout) if len(targets) == 1 else f"a share of {whose_timeout(timeout)}"
    health: Health | None = None
    failure: RpcError | None = None
    for index, target in enumerate(targets):
        # A target that does not answer must leave time for the next ones.
        share = None if ends_at is None else max(0.0, ends_at - monotonic()) / (len(targets) - index)
        answer = yield from _check(
            dispatch, target, dispatch.begin_only_attempt(share, whose), accept_model=accept_model
        )
        if isinstance(answer, RpcError):
            if failure is None or failure.reason in MISTAKES:
                failure = answer
            continue
        health = answer
        if health is Health.SERVING:
            dispatch.targets.worked(target)
            break
    if health is None and failure is not None:
        raise failure
    return health or Health.UNKNOWN


def _check(
    dispatch: "Dispatch", target: "Target", attempts: "CallAttempts", *, accept_model: bool
) -> Actions[Health | RpcError]:
    attempts.shared_metadata = yield from dispatch.fetch_metadata(attempts)
    reply = yield dispatch.send("Check", target, HEALTH_REQUEST, attempts)
    if accept_model and isinstance(reply, grpc.RpcError) and reply.code() is grpc.StatusCode.UNIMPLEMENTED:
        from doherty._core._status import read_status  # noqa: PLC0415 - few servers have no health service

        attempts.log.fail(read_status(reply), None)
        reply = yield dispatch.send("GetModel", target, GetModelRequest(), attempts)
    if not isinstance(reply, BaseException):
        attempts.log.succeed()
        return Health.SERVING if isinstance(reply, GetModelResponse) else health_from_wire(reply)
    error = cast("DohertyError", (yield from dispatch.after(reply, target, attempts)))
    error.__cause__ = reply
    if not isinstance(error, RpcError):
        raise error
    return error


def wait_ready(dispatch: "Dispatch", *, timeout: "Timeout") -> Actions[None]:
    """Returns as soon as one of the targets serves.

    Raises:
        DeadlineExceededError: No target served in time.
        DohertyError: The targets are not Doherty servers or cannot be called with these settings, or the client was
            closed.
    """
    seconds = choose_timeout(timeout, dispatch.settings.timeout)
    ends_at = inf if seconds is None else monotonic() + seconds
    seen = "no connection"
    pause = _FIRST_PAUSE
    while True:
        try:
            began = monotonic()
            check_seconds = min(_LONGEST_CHECK, max(0.0, ends_at - began))
            health = yield from check_health(dispatch, timeout=check_seconds, accept_model=True)
            if health is Health.SERVING:
                unsettled = [target for target in dispatch.targets if not target.settled]
                if unsettled:
                    settling = settling_seconds(monotonic() - began)
                    yield Pause(max(0.0, min(settling, ends_at - monotonic())))
                    for target in unsettled:
                        target.settled = True
                return
            seen = health
        except (UnavailableError, CancelledByServerError) as error:
            if error.reason in MISTAKES:
                raise
            seen = error.reason or "no connection"
        except DeadlineExceededError:
            pass  # The last check has little time, so its timeout is not informative.
        remaining = ends_at - monotonic()
        if remaining <= 0:
            names = ", ".join(dispatch.settings.targets)
            limit = f"{seconds:g} s ({whose_timeout(timeout)})"
            raise DeadlineExceededError(f"{names} was not ready within {limit}: last seen {seen}")
        yield Pause(min(pause, remaining))
        pause = min(2 * pause, _LONGEST_PAUSE)
