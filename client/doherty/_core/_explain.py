"""Converts the status of a failed call to an exception of this package."""

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
from doherty._core._names import name_as_sdk
from doherty._core._obstacle import Obstacle
from doherty._core._status import Status
from doherty._core._unreachable import certificate_advice

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

_MESSAGE_TOO_LARGE: Final = "message larger than max"
_METADATA_TOO_LARGE: Final = "metadata size exceeds"


def explain(  # noqa: PLR0913 - the parts of a message
    status: Status,
    *,
    target: str,
    begun: bool = False,
    attempts: int = 1,
    elapsed: float = 0.0,
    deadline: str | None = None,
    before: str | None = None,
) -> RpcError:
    """Creates the exception for a failed call.

    Args:
        status: The status of the call.
        target: The server's address, for the message.
        begun: Whether a part of the answer was received, so that the server was reachable.
        attempts: The number of attempts.
        elapsed: The seconds that they took.
        deadline: The call's timeout and its origin, if it has passed.
        before: The error message of the attempt before the last one.
    """
    if status.code is grpc.StatusCode.UNAVAILABLE:
        message = _unavailable(status, target, begun=begun)
    elif status.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = _too_late(status, target, deadline, before)
    else:
        message = _message(status, target)
    return _kind(status)(
        f"{message} (after {attempts} attempts in {elapsed:.3g} s)" if attempts > 1 else message,
        code=status.code,
        reason=status.reason,
        request_id=status.request_id,
        field_violations=status.field_violations,
        retry_after=status.retry_after,
        timings=status.timings,
    )


def _kind(status: Status) -> type[RpcError]:
    # gRPC's core uses the same code for messages that are too large and for a lack of memory.
    if not status.answered and status.code is grpc.StatusCode.RESOURCE_EXHAUSTED and _is_too_large(status.message):
        return InvalidRequestError
    return _KINDS.get(status.code, InternalError)


def _is_too_large(message: str) -> bool:
    return _MESSAGE_TOO_LARGE in message or _METADATA_TOO_LARGE in message


def _unavailable(status: Status, target: str, *, begun: bool) -> str:  # noqa: PLR0911 - a table
    message = status.message
    match status.obstacle:
        case Obstacle.TLS_REQUIRED:
            return f"{target} speaks TLS, and this client does not: connect with tls=True, TLSConfig(...) or --tls"
        case Obstacle.TLS_NOT_SPOKEN:
            return f"{target} does not speak TLS, and this client does: check the port, or connect without tls="
        case Obstacle.CERTIFICATE_NOT_TRUSTED:
            return f"the certificate of {target} {certificate_advice(message)}"
        case Obstacle.CERTIFICATE_REQUIRED:
            advice = "show one with TLSConfig(cert=..., key=...) or --tls-cert and --tls-key"
            return f"{target} requires a certificate from its callers, and this client has none: {advice}"
        case _ if status.answered:
            return f"{target} cannot answer now: {message}{_again(status.retry_after)}"
        case _ if begun:
            return f"{target} was lost in the middle of its answer: {message}"
        case Obstacle.UNKNOWN_NAME:
            return f"{target} was not reached: {message}; check the name"
        case Obstacle.CONNECTION_ENDED:
            advice = "if the server requires certificates from its callers, it may not have accepted this client's"
            return f"{target} was not reached: {message}; {advice}"
        case _:
            return f"{target} was not reached: {message}; check that a server listens there"


def _too_late(status: Status, target: str, deadline: str | None, before: str | None) -> str:
    if deadline is None:
        return f"{target}, or a proxy before it, has a time limit of its own, which ended the call: {status.message}"
    failed = f"; the attempt before failed with: {before}" if before else ""
    return f"{target} did not finish within {deadline}; allow more with timeout= or --timeout{failed}"


def _message(status: Status, target: str) -> str:  # noqa: C901, PLR0911 - a table
    message, ours = status.message, status.answered
    match status.code:
        case grpc.StatusCode.RESOURCE_EXHAUSTED if ours:
            return f"{message}{_again(status.retry_after)}"
        case grpc.StatusCode.RESOURCE_EXHAUSTED if _METADATA_TOO_LARGE in message:
            return f"{message}; the metadata is larger than the server takes"
        case grpc.StatusCode.RESOURCE_EXHAUSTED if message.startswith("CLIENT: "):
            return (
                f"{message}; the answer is larger than this client takes: stream it, or ask for fewer log probabilities"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED if _MESSAGE_TOO_LARGE in message:
            return f"{message}; the request is larger than the server takes: client.model().limits.max_message_bytes"
        case grpc.StatusCode.UNAUTHENTICATED:
            return f"{target} wants a valid key: {message}; give one with api_key= or DOHERTY_API_KEY"
        case grpc.StatusCode.PERMISSION_DENIED:
            return f"{target} does not allow this key to do it: {message}"
        case grpc.StatusCode.NOT_FOUND:
            return f"{message}; client.model() and `doherty model` tell what {target} serves"
        case grpc.StatusCode.INVALID_ARGUMENT:
            return name_as_sdk(message)
        case grpc.StatusCode.UNIMPLEMENTED if ours:
            return f"{name_as_sdk(message)}; client.model().features and `doherty model` list what {target} can do"
        case grpc.StatusCode.UNIMPLEMENTED:
            advice = f"check that {target} is a Doherty server of this version, and that nothing compresses messages"
            return f"{message}; {advice}"
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN if not ours:
            return f"{message}; so says gRPC at {target}, or a proxy before it, which could not make sense of the call"
        case _:
            return message


def _again(retry_after: float | None) -> str:
    return "" if retry_after is None else f"; try again in {retry_after:.3g} s"
