"""The errors of requests, and their conversion to a gRPC status with details.

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

Errors of engines are converted, too. All other exceptions are INTERNAL. Their text is logged, but never sent to the
caller.
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
MAX_VIOLATIONS = 8
"""Maximum number of invalid fields that a status names."""
_MAX_FIELD_BYTES = 100
_MAX_DESCRIPTION_BYTES = 300
_MAX_MESSAGE_BYTES = 600
# These bounds keep the trailing metadata below 8 kB, including its encoding (base64, and percent-encoding of the
# message). gRPC drops the status of a call whose trailing metadata is larger.
_MAX_JITTER = 1.2
"""Retry delays are multiplied by a random factor between 1 and this."""
ENGINE_RESTART_SECONDS = 5.0
"""The retry delay after the engine failed, which gives load balancers time to choose another server."""
_SHORTAGE_SECONDS = 1.0
"""The retry delay after a shortage of memory or file descriptors."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field."""

    field: str
    """The path of the field, for example "stopping.max_output_tokens"."""
    description: str


class ServiceError(Exception):
    """The base class of the errors that handlers raise. The message is sent to the caller."""

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
        """Stores the contents of the status.

        Args:
            reason: The reason in ErrorInfo.
            message: The message for the caller.
            violations: The invalid fields.
            retry_after: The estimated number of seconds until a retry can succeed.
            is_pointless: Whether a retry within the deadline of the call cannot succeed.
        """
        super().__init__(message)
        self.reason = reason
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.is_pointless = is_pointless

    @cached_property
    def retry_delay(self) -> float | None:
        """The retry delay that is sent to the caller: `retry_after` with jitter, so that retries do not coincide."""
        return None if self.retry_after is None else self.retry_after * random.uniform(1.0, _MAX_JITTER)  # noqa: S311 - no secret

    def copy(self) -> Self:
        """Returns a copy for another caller.

        An instance that is raised for several callers would keep the frames, and thereby the requests, of all of them.
        """
        copy = type(self).__new__(type(self), *self.args)
        copy.__dict__.update(self.__dict__)
        copy.__dict__.pop("retry_delay", None)  # each caller gets its own jitter
        return copy


class InvalidRequestError(ServiceError):
    """One or more fields of the request are invalid."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[Violation], reason: str = "INVALID_FIELD") -> None:
        """`violations` are all invalid fields, so that the caller can correct all of them together."""
        parts = (f"{item.field}: {item.description}" if item.field else item.description for item in violations)
        super().__init__(reason, "; ".join(parts), violations=violations)


class NotFoundError(ServiceError):
    """This server does not have the model or the adapter."""

    code = grpc.StatusCode.NOT_FOUND


class OverloadedError(ServiceError):
    """The server is full, the request exceeds a limit of its key, or it could not be answered before its deadline."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class PermissionDeniedError(ServiceError):
    """The caller's key does not allow this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class UnauthenticatedError(ServiceError):
    """The caller has not sent a valid key."""

    code = grpc.StatusCode.UNAUTHENTICATED


class UnavailableError(ServiceError):
    """The server cannot answer now. Another server, or a later retry, can succeed."""

    code = grpc.StatusCode.UNAVAILABLE


class CallerLeftError(ServiceError):
    """The caller cancelled the request. Only a request of a MultiplexGenerate gets this as a reply."""

    code = grpc.StatusCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("CANCELLED", "the request was cancelled by its caller")


class DeadlinePassedError(ServiceError):
    """The caller's deadline passed. Only a request of a MultiplexGenerate gets this as a reply."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__("DEADLINE_PASSED", "the deadline passed before the answer was complete")


class StalledReaderError(ServiceError):
    """The caller stopped reading its answer, which would keep the slot occupied."""

    code = grpc.StatusCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("STALLED_READER", "the answer was not read for too long")


class StalledSenderError(ServiceError):
    """The caller began a call, but did not send its whole request."""

    code = grpc.StatusCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("STALLED_SENDER", "the request did not arrive for too long")


class UnsupportedFieldError(ServiceError):
    """The request sets a field that this deployment does not support."""

    code = grpc.StatusCode.UNIMPLEMENTED

    def __init__(self, field: str, message: str = "this deployment does not support it") -> None:
        """`field` is the path of the field."""
        violation = Violation(field, message)
        super().__init__("FIELD_NOT_SUPPORTED", f"{field}: {message}", violations=[violation])


class UnsupportedMethodError(ServiceError):
    """The service has the method, but this server does not implement it."""

    code = grpc.StatusCode.UNIMPLEMENTED

    def __init__(self) -> None:
        super().__init__("METHOD_NOT_SUPPORTED", "this server does not implement the method")


def as_service_error(error: BaseException) -> ServiceError:
    """Converts any exception of a handler to the error that is sent to the caller."""
    match error:
        case ServiceError():
            return error
        case InvalidInputError():
            return InvalidRequestError([Violation(error.field, str(error))])
        case UnsupportedError():
            return UnsupportedFieldError(error.field, str(error))
        case EngineFailedError():
            return UnavailableError(
                "ENGINE_FAILED", "the engine failed during the request", retry_after=ENGINE_RESTART_SECONDS
            )
        case _ if isinstance(error, OutOfResourcesError) or is_shortage(error):
            return out_of_resources()
        case _:
            return ServiceError("INTERNAL", "internal error; the server's log has the details under this request id")


def out_of_resources() -> UnavailableError:
    """Returns the error for a shortage of memory or file descriptors."""
    return UnavailableError(
        "OUT_OF_RESOURCES", "the server is out of memory or file descriptors", retry_after=_SHORTAGE_SECONDS
    )


def to_status(error: ServiceError, request_id: str) -> Status:
    """Converts an error to a google.rpc.Status, shortened to fit into trailing metadata."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations[:MAX_VIOLATIONS]:
            bad_request.field_violations.add(
                field=_cut(violation.field, _MAX_FIELD_BYTES),
                description=_cut(violation.description, _MAX_DESCRIPTION_BYTES),
            )
        details.append(bad_request)
    if error.retry_delay is not None:
        retry_info = error_details_pb2.RetryInfo()
        retry_info.retry_delay.FromNanoseconds(round(error.retry_delay * 1e9))
        details.append(retry_info)
    status = Status(code=error.code.value[0], message=_cut(str(error), _MAX_MESSAGE_BYTES))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def pushback(error: ServiceError) -> str | None:
    """Returns the value of the metadata `grpc-retry-pushback-ms`, which controls retries by gRPC itself.

    It equals RetryInfo. A negative value prevents retries; None leaves them to gRPC's retry policy.
    """
    if error.is_pointless:
        return "-1"
    return None if error.retry_delay is None else str(math.ceil(error.retry_delay * 1000))


def _cut(text: str, max_bytes: int) -> str:
    """Returns the text, or its beginning with an ellipsis if it is too long."""
    data = text.encode()
    return text if len(data) <= max_bytes else data[: max_bytes - 3].decode(errors="ignore") + "…"
