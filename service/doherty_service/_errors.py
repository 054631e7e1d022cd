"""What a request can fail with, and the one place that maps it to a gRPC status with its details.

    ServiceError
    ├── InvalidRequestError   INVALID_ARGUMENT
    ├── NotFoundError         NOT_FOUND
    ├── OverloadedError       RESOURCE_EXHAUSTED
    ├── PermissionDeniedError PERMISSION_DENIED
    ├── UnauthenticatedError  UNAUTHENTICATED
    ├── UnavailableError      UNAVAILABLE
    ├── CallerLeftError       CANCELLED
    ├── DeadlinePassedError   DEADLINE_EXCEEDED
    ├── StalledReaderError    CANCELLED
    ├── StalledSenderError    CANCELLED
    ├── UnsupportedFieldError UNIMPLEMENTED
    └── UnsupportedMethodError UNIMPLEMENTED

Engines' errors are mapped too. Everything else is INTERNAL: its text goes to the log and never to a caller.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from doherty_engine import EngineFailedError, InvalidInputError, OutOfResourcesError, UnsupportedError, is_shortage

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "doherty"
MOST_VIOLATIONS = 8
"""Of the fields at fault, so many are told: a caller that knows these can mend the rest."""
_MOST_FIELD_BYTES = 100
_MOST_DESCRIPTION_BYTES = 300
_MOST_MESSAGE_BYTES = 600
# Together with the encoding of metadata (base64, and percent signs in the message) this stays below 8 kB: gRPC drops a
# call whose trailing metadata is larger than that, and with it the status.
_JITTER = 1.2
"""Callers are told to wait for up to so many times what there is to wait."""
ENGINE_RESTART_SECONDS = 5.0
"""When to try again after the engine failed: time enough for a load balancer to look elsewhere."""
_SHORTAGE_SECONDS = 1.0
"""When to try again after a shortage of memory or file descriptors."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field."""

    field: str
    """Its path, as "stopping.max_output_tokens"."""
    description: str


class ServiceError(Exception):
    """The base of the errors that a handler raises; the message is written for the caller."""

    code = grpc.StatusCode.INTERNAL

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        is_pointless: bool = False,
    ) -> None:
        """Keeps what the status will say.

        Args:
            reason: The reason in ErrorInfo.
            message: For the caller.
            violations: The fields at fault.
            retry_after: In how many seconds there will be room, by estimate.
            is_pointless: Whether the same call, within its deadline, would not fare better then.
        """
        super().__init__(message)
        self.reason = reason
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.is_pointless = is_pointless

    @cached_property
    def told_after(self) -> float | None:
        """What the caller is told of `retry_after`: a little more, so that not all come back at one moment."""
        return None if self.retry_after is None else self.retry_after * random.uniform(1.0, _JITTER)  # noqa: S311 - no secret

    def copy(self) -> Self:
        """The same error for one more caller: each raise adds its frames, and with them its request, to an instance."""
        same = type(self).__new__(type(self), *self.args)
        same.__dict__.update(self.__dict__)
        same.__dict__.pop("told_after", None)  # each caller is told a time of its own
        return same


class InvalidRequestError(ServiceError):
    """One or more fields of the request are wrong."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[Violation], reason: str = "INVALID_FIELD") -> None:
        """Takes all that is wrong, so that the caller can mend it in one go."""
        message = "; ".join(f"{one.field}: {one.description}" if one.field else one.description for one in violations)
        super().__init__(reason, message, violations=violations)


class NotFoundError(ServiceError):
    """The model or the adapter is not served here."""

    code = grpc.StatusCode.NOT_FOUND


class OverloadedError(ServiceError):
    """There is no room for the request or for its caller's key, or not before the caller gives up."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class PermissionDeniedError(ServiceError):
    """The caller's key does not allow this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class UnauthenticatedError(ServiceError):
    """The caller has shown no valid key."""

    code = grpc.StatusCode.UNAUTHENTICATED


class UnavailableError(ServiceError):
    """The server cannot answer now; another one, or this one later, can."""

    code = grpc.StatusCode.UNAVAILABLE


class CallerLeftError(ServiceError):
    """The caller cancelled a request of a MultiplexGenerate; of a call of its own it would not be told."""

    code = grpc.StatusCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("CANCELLED", "the request was cancelled by its caller")


class DeadlinePassedError(ServiceError):
    """The caller's deadline passed; where the request is a call of its own, its caller knows that by itself."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__("DEADLINE_PASSED", "the deadline passed before the answer was complete")


class StalledReaderError(ServiceError):
    """The caller stopped reading its answer, which would have kept a slot from others."""

    code = grpc.StatusCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("STALLED_READER", "the answer was not read for too long")


class StalledSenderError(ServiceError):
    """The caller began a call, and did not send the whole of its request."""

    code = grpc.StatusCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("STALLED_SENDER", "the request did not arrive for too long")


class UnsupportedFieldError(ServiceError):
    """The deployment cannot honour a field that the request sets."""

    code = grpc.StatusCode.UNIMPLEMENTED

    def __init__(self, field: str, message: str = "this deployment cannot do it") -> None:
        """Names the field, by its path."""
        violation = Violation(field, message)
        super().__init__("FIELD_NOT_SUPPORTED", f"{field}: {message}", violations=[violation])


class UnsupportedMethodError(ServiceError):
    """The service describes a method that nobody has written for this server."""

    code = grpc.StatusCode.UNIMPLEMENTED

    def __init__(self) -> None:
        """Needs no more than the method, which the caller knows."""
        super().__init__("METHOD_NOT_SUPPORTED", "this server does not have the method")


def as_service_error(error: BaseException) -> ServiceError:
    """Finds the error that a caller is told, for anything that a handler may raise."""
    match error:
        case ServiceError():
            return error
        case InvalidInputError():
            return InvalidRequestError([Violation(error.field, str(error))])
        case UnsupportedError():
            return UnsupportedFieldError(error.field, str(error))
        case EngineFailedError():
            return UnavailableError(
                "ENGINE_FAILED", "the engine failed while it worked on this", retry_after=ENGINE_RESTART_SECONDS
            )
        case _ if isinstance(error, OutOfResourcesError) or is_shortage(error):
            return out_of_resources()
        case _:
            return ServiceError("INTERNAL", "the server failed; its log has the details under this request id")


def out_of_resources() -> UnavailableError:
    """What callers are told where memory or file descriptors are short; it is not their fault, nor the engine's."""
    return UnavailableError(
        "OUT_OF_RESOURCES", "the server has no memory or file descriptor left for this", retry_after=_SHORTAGE_SECONDS
    )


def to_status(error: ServiceError, request_id: str) -> Status:
    """Makes the google.rpc.Status that carries an error to the caller, cut to what metadata may hold."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations[:MOST_VIOLATIONS]:
            bad_request.field_violations.add(
                field=_cut(violation.field, _MOST_FIELD_BYTES),
                description=_cut(violation.description, _MOST_DESCRIPTION_BYTES),
            )
        details.append(bad_request)
    if error.told_after is not None:
        retry_info = error_details_pb2.RetryInfo()
        retry_info.retry_delay.FromNanoseconds(round(error.told_after * 1e9))
        details.append(retry_info)
    status = Status(code=error.code.value[0], message=_cut(str(error), _MOST_MESSAGE_BYTES))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def pushback(error: ServiceError) -> str | None:
    """The value of the metadata `grpc-retry-pushback-ms`, for clients whose gRPC repeats calls by itself.

    It is what RetryInfo says; a negative one keeps gRPC from trying again. None where gRPC's own rules shall hold.
    """
    if error.is_pointless:
        return "-1"
    return None if error.told_after is None else str(math.ceil(error.told_after * 1000))


def _cut(text: str, most_bytes: int) -> str:
    """The text, or its beginning and an ellipsis."""
    data = text.encode()
    return text if len(data) <= most_bytes else data[: most_bytes - 3].decode(errors="ignore") + "…"
