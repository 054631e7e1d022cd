"""The exceptions of this package.

    DohertyError
    ├── RpcError                     a call ended with a status other than OK
    │   ├── InvalidRequestError      INVALID_ARGUMENT: a field is wrong
    │   ├── AuthenticationError      UNAUTHENTICATED: no valid key
    │   ├── PermissionDeniedError    PERMISSION_DENIED: not allowed with this key
    │   ├── NotFoundError            NOT_FOUND: model or adapter
    │   ├── OverloadedError          RESOURCE_EXHAUSTED: full; try again after retry_after
    │   ├── UnavailableError         UNAVAILABLE: not reached, or not ready (also a ConnectionError)
    │   ├── DeadlineExceededError    DEADLINE_EXCEEDED: the timeout passed (also a TimeoutError)
    │   ├── UnsupportedError         UNIMPLEMENTED: not supported by this deployment
    │   ├── CancelledByServerError   CANCELLED, and not by this client
    │   └── InternalError            INTERNAL, and all statuses that our servers never send
    ├── StreamError                  a stream ended before its answer was complete; carries what was received
    ├── ParseError                   an answer does not fit its schema=; carries the answer (also a ValueError)
    ├── ClientClosedError            the client was used after its close()
    ├── ForkError                    the client was used before a fork of the process (also a RuntimeError)
    └── EventLoopError               an AsyncClient was used outside its event loop (also a RuntimeError)

If a request cannot be sent at all, the call raises TypeError or ValueError.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from doherty._core._results import Generation, Timings


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """Describes a problem with one field of a request."""

    field: str
    """The path of the field, for example "sampling.temperature"."""
    description: str


class DohertyError(Exception):
    """The base of all errors of this package."""


class RpcError(DohertyError):
    """A call ended with a status other than OK."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(  # noqa: PLR0913 - one parameter for each part of a status
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str | None = None,
        request_id: str | None = None,
        field_violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        timings: "Timings | None" = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """Describes the problem and, if known, its solution."""
        self.code = code or type(self).code
        """The status."""
        self.reason = reason
        """The error reason, stable and machine-readable; None if the server did not say. FIRST_TOKEN_TIMEOUT and
        IDLE_TIMEOUT are the client's own."""
        self.request_id = request_id
        """The id under which the server logged the call; None if the server did not say."""
        self.field_violations = tuple(field_violations)
        """The invalid fields."""
        self.retry_after = retry_after
        """The seconds after which to try again; None if the server did not say."""
        self.timings = timings
        """The timings that the server measured; None if it did not send them."""

    def __str__(self) -> str:
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.message} [{self.code.name}{request}]"


class InvalidRequestError(RpcError):
    """A field is wrong, or the prompt is too long: `field_violations` says which and why."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class AuthenticationError(RpcError):
    """The call had no valid key."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDeniedError(RpcError):
    """The key does not allow the call."""

    code = grpc.StatusCode.PERMISSION_DENIED


class NotFoundError(RpcError):
    """The deployment does not serve this model or adapter."""

    code = grpc.StatusCode.NOT_FOUND


class OverloadedError(RpcError):
    """The server is full; `retry_after` says when to try again."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class UnavailableError(RpcError, ConnectionError):
    """The server could not be reached, or does not accept calls at the moment."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceededError(RpcError, TimeoutError):
    """The timeout passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class UnsupportedError(RpcError):
    """The deployment does not support the request, or one of its fields."""

    code = grpc.StatusCode.UNIMPLEMENTED


class CancelledByServerError(RpcError):
    """The server, or a proxy before it, cancelled the call."""

    code = grpc.StatusCode.CANCELLED


class InternalError(RpcError):
    """The server failed. If there is no `reason`, gRPC or a proxy could not process the call."""

    code = grpc.StatusCode.INTERNAL


class StreamError(DohertyError):
    """A stream ended before its answer was complete."""

    def __init__(
        self,
        message: str,
        *,
        text: str = "",
        token_ids: tuple[int, ...] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.text = text
        """The text that was received."""
        self.token_ids = token_ids
        """The ids of its tokens; None if they were not requested or are not all known."""
        self.request_id = request_id
        """The id under which the server logged the call; None if it was not received."""


class ParseError(DohertyError, ValueError):
    """An answer does not fit the requested schema, most often because it was cut off."""

    def __init__(self, message: str, generation: "Generation[None]") -> None:
        super().__init__(message, generation)
        self.generation = generation
        """The answer as received; its `finish_reason` shows whether it was cut off."""

    def __str__(self) -> str:
        return str(self.args[0])


class ClientClosedError(DohertyError):
    """The client was used after its close(), or closed while it was used."""


class ForkError(DohertyError, RuntimeError):
    """A client was used before a fork of the process, and again in the forked process."""


class EventLoopError(DohertyError, RuntimeError):
    """An AsyncClient was used outside the event loop that it belongs to."""


# Tracebacks and pickles show the names that callers import.
for _kind in [value for value in globals().values() if isinstance(value, type) and issubclass(value, DohertyError)]:
    _kind.__module__ = "doherty"
