"""What a server's health service says, and waiting for it to say that the server serves."""

from collections.abc import Callable
from enum import StrEnum
from time import monotonic
from typing import Final

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from doherty._core._errors import CancelledByServerError, DeadlineExceededError, RpcError, UnavailableError

CHECK: Final = "/grpc.health.v1.Health/Check"
"""The method of grpc.health.v1 that answers once."""

# The SDK does without the package grpcio-health-checking: a HealthCheckResponse, whose only field is an enum with the
# number 1, has the same bytes as an Int32Value, and a HealthCheckRequest, whose only field is a string with the
# number 1, those of a StringValue. Nor is its .proto file registered a second time, which protobuf forbids in a process
# that has the package.
encode_service: Final[Callable[[StringValue], bytes]] = StringValue.SerializeToString
decode_status: Final = Int32Value.FromString

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
_LONGEST_CHECK: Final = 5.0


class Health(StrEnum):
    """What a server says of its health."""

    SERVING = "SERVING"
    """It takes requests."""
    NOT_SERVING = "NOT_SERVING"
    """It does not: it loads its model, shuts down, or its engine failed."""
    UNKNOWN = "UNKNOWN"
    """It does not tell."""


REQUEST: Final = StringValue()
"""Asks for the health of the whole server: that of the service without a name."""


def health_from_wire(reply: Int32Value) -> Health:
    """The health that a reply tells."""
    return {1: Health.SERVING, 2: Health.NOT_SERVING}.get(reply.value, Health.UNKNOWN)


class Turns:
    """Shares the time of one look at several servers, so that one that says nothing leaves some for those behind it."""

    def __init__(self, timeout: float | None, count: int) -> None:
        """Begins now; `timeout` is in seconds, None is no end."""
        self._ends_at = None if timeout is None else monotonic() + timeout
        self._left = count

    def seconds(self) -> float | None:
        """How long the next one of them has; None is no end."""
        if self._ends_at is None:
            return None
        share = max(0.0, self._ends_at - monotonic()) / self._left
        self._left -= 1
        return share


class Wait:
    """Keeps the time, and what was seen last, while a client waits for a server that serves."""

    def __init__(self, target: str, timeout: float | None) -> None:
        """Waits `timeout` seconds, or without end for None."""
        self._target = target
        self._timeout = timeout
        self._ends_at = None if timeout is None else monotonic() + timeout
        self._next_pause = _FIRST_PAUSE
        self._seen = "no connection"

    def saw(self, health: Health) -> bool:
        """Takes in what the server says of its health, and tells whether it serves."""
        self._seen = health
        return health is Health.SERVING

    def failed(self, error: RpcError) -> None:
        """Takes in that it could not be asked.

        Raises:
            RpcError: Waiting does not help.
        """
        if not isinstance(error, UnavailableError | DeadlineExceededError | CancelledByServerError):
            raise error
        if not isinstance(error, DeadlineExceededError):  # the last check has little time
            self._seen = error.reason or "no connection"

    def check_seconds(self) -> float:
        """How long the next check may take."""
        return _LONGEST_CHECK if self._ends_at is None else min(_LONGEST_CHECK, self._remaining())

    def pause(self, connectivity: Callable[[], str]) -> float:
        """How many seconds to wait before the next check.

        Args:
            connectivity: Tells the state of the channel; only asked when the time is over.

        Raises:
            DeadlineExceededError: The time is over.
        """
        pause, self._next_pause = self._next_pause, min(2 * self._next_pause, _LONGEST_PAUSE)
        if self._ends_at is None:
            return pause
        if not self._remaining():
            raise DeadlineExceededError(
                f"{self._target} was not ready within {self._timeout:g} s: last seen {self._seen} "
                f"(channel {connectivity()})"
            )
        return min(pause, self._remaining())

    def _remaining(self) -> float:
        return 0.0 if self._ends_at is None else max(0.0, self._ends_at - monotonic())
