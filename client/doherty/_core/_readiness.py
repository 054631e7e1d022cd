"""Waiting for a server's health service to say that it serves."""

from collections.abc import Callable
from time import monotonic
from typing import Final

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from doherty._core._errors import DeadlineExceededError

WATCH: Final = "/grpc.health.v1.Health/Watch"
"""The method of grpc.health.v1 that answers at once, and again whenever the answer changes."""

# The SDK does without the package grpcio-health-checking: a HealthCheckResponse, whose only field is an enum with the
# number 1, has the same bytes as an Int32Value, and a HealthCheckRequest, whose only field is a string with the
# number 1, those of a StringValue. Nor is its .proto file registered a second time, which protobuf forbids in a process
# that has the package.
encode_service: Final[Callable[[StringValue], bytes]] = StringValue.SerializeToString
decode_status: Final = Int32Value.FromString

_SERVING: Final = 1
_STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


def status_name(number: int) -> str:
    """The name of a status of grpc.health.v1."""
    return _STATUSES[number] if 0 <= number < len(_STATUSES) else f"status {number}"


class Readiness:
    """Keeps the time and what was seen last while a client waits."""

    request: Final = StringValue()
    """The service whose health is that of the whole server: the one without a name."""

    def __init__(self, target: str, timeout: float | None) -> None:
        """Waits `timeout` seconds, or without end for None."""
        self._target = target
        self._timeout = timeout
        self._ends_at = None if timeout is None else monotonic() + timeout
        self._seen = "no connection"
        self._next_pause = _FIRST_PAUSE

    def is_serving(self, status: Int32Value) -> bool:
        """Takes in what the server says of its health."""
        self._seen = status_name(status.value)
        return status.value == _SERVING

    def saw(self, what: str) -> None:
        """Takes in why the server did not say it."""
        self._seen = what

    def remaining(self) -> float | None:
        """How many seconds are left; None for no end."""
        return None if self._ends_at is None else max(0.0, self._ends_at - monotonic())

    def pause(self) -> float:
        """How many seconds to leave a server alone that was reached but did not go on with its Watch.

        While there is no connection it is gRPC that waits, and no pause is needed.
        """
        pause, self._next_pause = self._next_pause, min(2 * self._next_pause, _LONGEST_PAUSE)
        remaining = self.remaining()
        return pause if remaining is None else min(pause, remaining)

    def timed_out(self, connectivity: str) -> DeadlineExceededError:
        """Makes the error that says what was seen last."""
        return DeadlineExceededError(
            f"{self._target} was not ready within {self._timeout:g} s: last seen {self._seen} (channel {connectivity})"
        )
