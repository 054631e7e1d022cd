"""What a call that failed was told."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from doherty._core._errors import FieldViolation
from doherty._core._from_wire import seconds, timings_from_header
from doherty._core._results import Timings

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status as WireStatus

_GONE: Final = (grpc.StatusCode.CANCELLED,)
_BROKEN: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ended, and what the server said about it."""

    code: grpc.StatusCode
    message: str
    answered: bool = False
    """Whether a server of ours made it: gRPC's core, and proxies, cannot add the details."""
    reason: str | None = None
    request_id: str | None = None
    field_violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None
    timings: Timings | None = None

    def may_pass(self, *, begun: bool) -> bool:
        """Tells whether the call may fare better later, or at another server.

        Args:
            begun: Whether something of the answer had been received. Then whatever breaks off the stream counts that
                no server of ours sent: gRPC's core and proxies report a broken connection in several ways.
        """
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.retry_after is not None
        if self.code is grpc.StatusCode.UNAVAILABLE:
            return True
        # At the end of its drain a server cancels its last calls without a word of its own.
        return not self.answered and self.code in (_BROKEN if begun else _GONE)


CUT_OFF: Final = Status(grpc.StatusCode.UNAVAILABLE, "the stream ended without a summary")


def read_status(error: grpc.RpcError) -> Status:
    """Reads what grpc or grpc.aio raised: an AioRpcError has the same methods as a sync call."""
    told: dict[str, Any] = {}
    if _trailing(error, "grpc-status-details-bin") is not None and (status := _details(error)) is not None:
        told = _unpack(status)
    return Status(
        code=error.code(),
        message=error.details() or "no reason given",
        timings=timings_from_header(_trailing(error, "server-timing")),
        **told,
    )


def _unpack(status: "WireStatus") -> dict[str, Any]:
    from google.rpc import error_details_pb2 as details  # noqa: PLC0415 - only a failed call pays for it

    told: dict[str, Any] = {"answered": True}
    info, request, fields, retry = details.ErrorInfo(), details.RequestInfo(), details.BadRequest(), details.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            told["reason"] = info.reason
        elif detail.Unpack(request):
            told["request_id"] = request.request_id
        elif detail.Unpack(fields):
            told["field_violations"] = tuple(
                FieldViolation(one.field, one.description) for one in fields.field_violations
            )
        elif detail.Unpack(retry):
            told["retry_after"] = seconds(retry.retry_delay)
    return told


def _details(error: grpc.RpcError) -> "WireStatus | None":
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only a failed call pays for it
    from grpc_status import rpc_status  # noqa: PLC0415

    try:
        # It reads code, details and trailing metadata, which an AioRpcError has just as a Call does.
        return cast("WireStatus | None", rpc_status.from_call(cast("grpc.Call", error)))
    except (ValueError, DecodeError):
        # Details that contradict the status, or are none, were put there by something between us and the server.
        return None


def _trailing(error: grpc.RpcError, key: str) -> str | bytes | None:
    # A sync call tells None where there is no metadata.
    for name, value in cast("Any", error.trailing_metadata()) or ():
        if name == key:
            return cast("str | bytes", value)
    return None
