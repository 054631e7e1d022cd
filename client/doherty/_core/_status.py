"""Reads the status of a failed call from gRPC's exception."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.protobuf.message import DecodeError

from doherty._core._errors import FieldViolation
from doherty._core._from_wire import seconds, timings_from_header
from doherty._core._results import Timings

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status as WireStatus

    from doherty._core._obstacle import Obstacle

_GONE: Final = (grpc.StatusCode.CANCELLED,)
_BROKEN: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a call, with the details that the server sent."""

    code: grpc.StatusCode
    message: str
    answered: bool = False
    """Whether it came from a Doherty server. gRPC's core and proxies do not add these details."""
    reason: str | None = None
    request_id: str | None = None
    field_violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None
    timings: Timings | None = None
    obstacle: "Obstacle | None" = None
    """Why the call did not reach a server; None if it may have reached one."""

    def may_pass(self, *, begun: bool) -> bool:
        """Whether the call may succeed later, or on another server.

        Args:
            begun: Whether a part of the answer was received. Then this is True for all errors that no Doherty server
                sent, because gRPC's core and proxies report a broken connection in several ways.
        """
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.retry_after is not None
        if self.code is grpc.StatusCode.UNAVAILABLE:
            return True
        # At the end of its drain, a server cancels its last calls without details.
        return not self.answered and self.code in (_BROKEN if begun else _GONE)


CUT_OFF: Final = Status(grpc.StatusCode.UNAVAILABLE, "the stream ended without a summary")


def read_status(error: grpc.RpcError | None, *, timed_out: bool = False) -> Status:
    """Reads the exception of grpc or grpc.aio: an AioRpcError has the same methods as a sync call.

    Args:
        error: None for a stream that ended without a summary.
        timed_out: Whether the call's deadline has passed. The server may notice it first, and send CANCELLED.
    """
    if error is None:
        return CUT_OFF
    details: dict[str, Any] = {}
    if _trailing(error, "grpc-status-details-bin") is not None and (status := _details(error)) is not None:
        details = _unpack(status)
    code = error.code()
    return Status(
        code=grpc.StatusCode.DEADLINE_EXCEEDED if timed_out and code is grpc.StatusCode.CANCELLED else code,
        message=error.details() or "no reason given",
        timings=timings_from_header(_trailing(error, "server-timing")),
        **details,
    )


def _unpack(status: "WireStatus") -> dict[str, Any]:
    from google.rpc import error_details_pb2  # noqa: PLC0415 - needed only after a failure

    details: dict[str, Any] = {"answered": True}
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    fields, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            details["reason"] = info.reason
        elif detail.Unpack(request):
            details["request_id"] = request.request_id
        elif detail.Unpack(fields):
            details["field_violations"] = tuple(
                FieldViolation(violation.field, violation.description) for violation in fields.field_violations
            )
        elif detail.Unpack(retry):
            details["retry_after"] = seconds(retry.retry_delay)
    return details


def _details(error: grpc.RpcError) -> "WireStatus | None":
    from grpc_status import rpc_status  # noqa: PLC0415 - needed only after a failure

    try:
        # It reads code, details and trailing metadata, which both AioRpcError and Call have.
        return cast("WireStatus | None", rpc_status.from_call(cast("grpc.Call", error)))
    except (ValueError, DecodeError):
        # A proxy added details that contradict the status or cannot be parsed.
        return None


def _trailing(error: grpc.RpcError, key: str) -> str | bytes | None:
    # A sync call returns None if there is no metadata.
    for name, value in cast("Any", error.trailing_metadata()) or ():
        if name == key:
            return cast("str | bytes", value)
    return None
