"""Checks the health of servers, and waits until one is ready."""

from collections.abc import Callable
from enum import StrEnum
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from doherty._core._actions import Actions, ChannelState, Pause
from doherty._core._channel import is_several
from doherty._core._errors import (
    CancelledByServerError,
    DeadlineExceededError,
    DohertyError,
    RpcError,
    UnavailableError,
)
from doherty._core._settings import choose_timeout

if TYPE_CHECKING:
    from doherty._core._dispatch import Dispatch
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
_LEAST_SETTLING: Final = 0.05
_MOST_SETTLING: Final = 1.0


class Health(StrEnum):
    """The health that a server reports."""

    SERVING = "SERVING"
    """It takes requests."""
    NOT_SERVING = "NOT_SERVING"
    """It does not: it loads its model, shuts down, or its engine failed."""
    UNKNOWN = "UNKNOWN"
    """It does not say."""


_REQUEST: Final = StringValue()
"""Asks for the health of the whole server, which is the service with the empty name."""


def health_from_wire(reply: Int32Value) -> Health:
    """The health in a reply."""
    return {1: Health.SERVING, 2: Health.NOT_SERVING}.get(reply.value, Health.UNKNOWN)


def check_health(dispatch: "Dispatch", *, timeout: "Timeout") -> Actions[Health]:
    """Asks the targets one after the other until one serves; if none does, returns what the last one answered.

    Raises:
        DohertyError: None answers, or the client is closed.
    """
    seconds = choose_timeout(timeout, dispatch.settings.timeout)
    ends_at = None if seconds is None else monotonic() + seconds
    targets = tuple(dispatch.targets)
    health: Health | None = None
    failure: DohertyError | None = None
    for index, target in enumerate(targets):
        # A target that does not answer leaves time for those behind it.
        share = None if ends_at is None else max(0.0, ends_at - monotonic()) / (len(targets) - index)
        attempts = dispatch.begin_only_attempt(share)
        yield from dispatch.authorize(attempts)
        reply = yield dispatch.send("Check", target, _REQUEST, attempts)
        if isinstance(reply, BaseException):
            failure = cast("DohertyError", (yield from dispatch.after(reply, target, attempts)))
            failure.__cause__ = reply
            if not isinstance(failure, RpcError):
                raise failure
            continue
        attempts.log.succeed()
        health = health_from_wire(reply)
        if health is Health.SERVING:
            dispatch.targets.worked(target)
            break
    if health is None and failure is not None:
        raise failure
    return health or Health.UNKNOWN


def wait_ready(dispatch: "Dispatch", *, timeout: "Timeout") -> Actions[None]:
    """Returns when one of the targets serves.

    Raises:
        DeadlineExceededError: None did in time.
        DohertyError: They have no health service, or the client was closed.
    """
    seconds = choose_timeout(timeout, dispatch.settings.timeout)
    ends_at = inf if seconds is None else monotonic() + seconds
    seen = "no connection"
    pause = _FIRST_PAUSE
    while True:
        try:
            began = monotonic()
            check_seconds = min(_LONGEST_CHECK, max(0.0, ends_at - began))
            health = yield from check_health(dispatch, timeout=check_seconds)
            if health is Health.SERVING:
                if any(map(is_several, dispatch.settings.targets)):
                    # The first of several servers is connected. Until the others are, which takes about as long again,
                    # gRPC would send all calls of a burst to the first one.
                    settling = min(max(monotonic() - began, _LEAST_SETTLING), _MOST_SETTLING)
                    yield Pause(max(0.0, min(settling, ends_at - monotonic())))
                return
            seen = health
        except (UnavailableError, CancelledByServerError) as error:
            seen = error.reason or "no connection"
        except DeadlineExceededError:
            pass  # The last check has little time, so its timeout says nothing.
        remaining = ends_at - monotonic()
        if remaining <= 0:
            names = ", ".join(dispatch.settings.targets)
            state = yield ChannelState(next(iter(dispatch.targets)))
            raise DeadlineExceededError(
                f"{names} was not ready within {seconds:g} s: last seen {seen} (channel {state})"
            )
        yield Pause(min(pause, remaining))
        pause = min(2 * pause, _LONGEST_PAUSE)
