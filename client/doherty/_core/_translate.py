"""The one place that turns how a call ended into what this package raises."""

from typing import Final

import grpc

from doherty._core._errors import (
    AuthenticationError,
    CancelledByServerError,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RpcError,
    UnavailableError,
    UnsupportedError,
)
from doherty._core._status import Status

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


def translate(status: Status, *, target: str, connectivity: str, begun: bool = False, attempts: int = 1) -> RpcError:
    """Makes the error of this package that a failed call stands for.

    Args:
        status: How it ended.
        target: The server's address, for the message.
        connectivity: The state of the channel, for the message.
        begun: Whether something of the answer had come, so that the server was there.
        attempts: How often the call was tried.
    """
    kind = _KINDS.get(status.code, InternalError)
    message = _message(status, target, connectivity, begun=begun)
    return kind(
        f"{message} (after {attempts} attempts)" if attempts > 1 else message,
        code=status.code,
        reason=status.reason,
        request_id=status.request_id,
        field_violations=status.field_violations,
        retry_after=status.retry_after,
        timings=status.timings,
    )


def _message(status: Status, target: str, connectivity: str, *, begun: bool) -> str:  # noqa: C901, PLR0911, PLR0912 - a table
    """What went wrong and what to do, for those who call from Python and for those who use the command."""
    said, ours, again = status.message, status.answered, _again(status.retry_after)
    match status.code:
        case grpc.StatusCode.UNAVAILABLE if ours:
            return f"{target} cannot answer now (channel {connectivity}): {said}{again}"
        case grpc.StatusCode.UNAVAILABLE if begun:
            return f"{target} was lost in the middle of its answer (channel {connectivity}): {said}"
        case grpc.StatusCode.UNAVAILABLE:
            return f"{target} was not reached (channel {connectivity}): {said}; check that a server listens there"
        case grpc.StatusCode.RESOURCE_EXHAUSTED if ours:
            return f"{said}{again}"
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "metadata" in said:
            return f"{said}; the metadata is larger than the server takes"
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return f"{said}; the request is larger than the server takes: client.model().limits.max_message_bytes"
        case grpc.StatusCode.UNAUTHENTICATED:
            return f"{target} wants a valid key: {said}; give one with api_key= or DOHERTY_API_KEY"
        case grpc.StatusCode.PERMISSION_DENIED:
            return f"{target} does not allow this key to do it: {said}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{target} did not finish in time: {said}; allow more with timeout= or --timeout"
        case grpc.StatusCode.NOT_FOUND:
            return f"{said}; client.model() and `doherty model` tell what {target} serves"
        case grpc.StatusCode.UNIMPLEMENTED if ours:
            return f"{said}; client.model().features and `doherty model` list what {target} can do"
        case grpc.StatusCode.UNIMPLEMENTED:
            return (
                f"{said}; check that {target} is a Doherty server of this version, and that nothing compresses messages"
            )
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN if not ours:
            return f"{said}; so says gRPC at {target}, or a proxy before it, which could not make sense of the call"
        case _:
            return said


def _again(retry_after: float | None) -> str:
    return "" if retry_after is None else f"; try again in {retry_after:.3g} s"
