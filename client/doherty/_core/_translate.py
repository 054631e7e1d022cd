"""The one place that turns what gRPC raises into what this package raises."""

from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from doherty._core._errors import (
    AuthenticationError,
    CancelledByServerError,
    DeadlineExceededError,
    FieldViolation,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RpcError,
    UnavailableError,
    UnsupportedError,
)
from doherty._core._from_wire import seconds, timings_from_header

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

_KINDS: Final[dict[grpc.StatusCode, type[RpcError]]] = {
    kind.code: kind
    for kind in (
        InvalidRequestError,
        AuthenticationError,
        PermissionDeniedError,
        NotFoundError,
        OverloadedError,
        UnavailableError,
        DeadlineExceededError,
        UnsupportedError,
        CancelledByServerError,
        InternalError,
    )
}


def translate(error: grpc.RpcError, *, target: str, connectivity: str, begun: bool = False) -> RpcError:
    """Makes the error of this package that a failed call stands for.

    Args:
        error: What grpc or grpc.aio raised.
        target: The server's address, for the message.
        connectivity: The state of the channel, for the message.
        begun: Whether something of the answer had come, so that the server was there.
    """
    code = error.code()
    told = _Told(error)
    kind = _KINDS.get(code, InternalError)
    return kind(
        _message(error, told, target, connectivity, begun=begun),
        code=code,
        reason=told.reason,
        request_id=told.request_id,
        field_violations=told.field_violations,
        retry_after=told.retry_after,
        timings=timings_from_header(_trailing(error, "server-timing")),
    )


def answered(error: grpc.RpcError) -> bool:
    """Tells whether a server of ours made this status: gRPC's core cannot add the details."""
    return _trailing(error, "grpc-status-details-bin") is not None


class _Told:
    """What the google.rpc details of a status tell."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.reason: str | None = None
        self.request_id: str | None = None
        self.field_violations: tuple[FieldViolation, ...] = ()
        self.retry_after: float | None = None
        status = _status(error)
        if status is not None:
            self._unpack(status)

    def _unpack(self, status: "Status") -> None:
        from google.rpc import error_details_pb2 as details  # noqa: PLC0415 - only a failed call pays for it

        info, request, fields, retry = (
            details.ErrorInfo(),
            details.RequestInfo(),
            details.BadRequest(),
            details.RetryInfo(),
        )
        for detail in status.details:
            if detail.Unpack(info):
                self.reason = info.reason
            elif detail.Unpack(request):
                self.request_id = request.request_id
            elif detail.Unpack(fields):
                self.field_violations = tuple(
                    FieldViolation(one.field, one.description) for one in fields.field_violations
                )
            elif detail.Unpack(retry):
                self.retry_after = seconds(retry.retry_delay)


def _status(error: grpc.RpcError) -> "Status | None":
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only a failed call pays for it
    from grpc_status import rpc_status  # noqa: PLC0415

    try:
        # It reads code, details and trailing metadata, which an AioRpcError has just as a Call does.
        return cast("Status | None", rpc_status.from_call(cast("grpc.Call", error)))
    except (ValueError, DecodeError):
        # Details that contradict the status, or are none, were put there by something between us and the server.
        return None


def _trailing(error: grpc.RpcError, key: str) -> str | bytes | None:
    # A sync call tells None where there is no metadata.
    for name, value in cast("Any", error.trailing_metadata()) or ():
        if name == key:
            return cast("str | bytes", value)
    return None


def _message(error: grpc.RpcError, told: _Told, target: str, connectivity: str, *, begun: bool) -> str:
    message = error.details() or "no reason given"
    ours = answered(error)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE if ours:
            message = f"{target} cannot answer now (channel {connectivity}): {message}{_again(told.retry_after)}"
        case grpc.StatusCode.UNAVAILABLE if begun:
            message = f"{target} was lost in the middle of its answer (channel {connectivity}): {message}"
        case grpc.StatusCode.UNAVAILABLE:
            message = f"{target} was not reached (channel {connectivity}): {message}; check that a server listens there"
        case grpc.StatusCode.RESOURCE_EXHAUSTED if ours:
            message += _again(told.retry_after)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            message += "; the request is larger than the server takes: client.model().limits.max_message_bytes"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"{target} did not finish in time: {message}; allow more with timeout="
        case grpc.StatusCode.NOT_FOUND:
            message += f"; client.model() tells what {target} serves"
        case grpc.StatusCode.UNIMPLEMENTED if ours:
            message += f"; client.model().features lists what {target} can do"
        case grpc.StatusCode.UNIMPLEMENTED:
            message += f"; check that {target} is a Doherty server of this version"
        case _:
            pass
    return message


def _again(retry_after: float | None) -> str:
    return "" if retry_after is None else f"; try again in {retry_after:.3g} s"
