"""Converts results and errors of the SDK to messages of the contract."""

import logging
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final, TypeVar, cast
from uuid import uuid4

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from doherty._core._deployment import Latency
from doherty._core._errors import InternalError, RpcError
from doherty._core._from_wire import FINISH_REASONS
from doherty._core._results import FinishReason
from doherty.v1.answer_pb2 import Timings as WireTimings
from doherty.v1.latency_service_pb2 import AbortCause, GetLatencyResponse

_LOG: Final = logging.getLogger("doherty.testing")

MessageT = TypeVar("MessageT", bound=Message)

_FINISH_REASONS: Final = {reason: wire for wire, reason in FINISH_REASONS.items()}
_OF_A_NEWER_CONTRACT: Final = 99

_REASONS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_FIELD",
    grpc.StatusCode.UNAUTHENTICATED: "INVALID_KEY",
    grpc.StatusCode.PERMISSION_DENIED: "ADAPTER_NOT_ALLOWED",
    grpc.StatusCode.NOT_FOUND: "MODEL_NOT_FOUND",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "QUEUE_FULL",
    grpc.StatusCode.UNAVAILABLE: "WARMING_UP",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_PASSED",
    grpc.StatusCode.UNIMPLEMENTED: "FIELD_NOT_SUPPORTED",
    grpc.StatusCode.CANCELLED: "STALLED_READER",
}
"""The usual reason with a status."""


def fill(message: MessageT, result: object) -> MessageT:
    """Copies the fields of a result to the fields of a message with the same names. None leaves a field unset."""
    for name in (field.name for field in fields(cast("Any", result))):
        value = getattr(result, name)
        if value is not None and name in message.DESCRIPTOR.fields_by_name:
            _put(message, name, value)
    return message


def _put(message: Message, name: str, value: Any) -> None:
    target = getattr(message, name)
    if isinstance(target, Duration):
        target.FromNanoseconds(round(value * 1e9))
    elif isinstance(value, FinishReason):
        setattr(message, name, _FINISH_REASONS.get(value, _OF_A_NEWER_CONTRACT))
    elif is_dataclass(value):
        target.SetInParent()
        fill(target, value)
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        for item in cast("tuple[object, ...]", value):
            fill(target.add(), item)
    elif isinstance(value, tuple):
        target.extend(value)
    elif not isinstance(value, Mapping):
        setattr(message, name, value)


def latency_to_wire(latency: Latency) -> GetLatencyResponse:
    """Returns the reply of GetLatency."""
    reply = fill(GetLatencyResponse(), latency)
    for cause, count in latency.aborts.items():
        reply.aborts.add(cause=AbortCause.Value(f"ABORT_CAUSE_{cause.upper()}"), count=count)
    return reply


def server_timing(timings: WireTimings) -> tuple[str, str]:
    """The trailing metadata with the timings."""
    spans = (f"{field.name};dur={span.ToNanoseconds() / 1e6:.3f}" for field, span in timings.ListFields())
    return "server-timing", ", ".join(spans)


def as_rpc_error(error: Exception) -> RpcError:
    """Returns the error to send, for an exception that the function of a test raised."""
    if isinstance(error, RpcError):
        return error
    _LOG.error("The reply to a request failed", exc_info=error)
    return InternalError(f"the test's reply failed: {type(error).__name__}: {error}")


def status_of(error: RpcError, request_id: str) -> Status:
    """The status that the SDK reads as this error.

    Args:
        error: The error that a test defined.
        request_id: The id for an error that has none. If this is empty, too, a new id is used.
    """
    code: int = error.code.value[0]
    parts: list[Message] = [
        details.ErrorInfo(reason=error.reason or _REASONS.get(error.code, "INTERNAL"), domain="doherty"),
        details.RequestInfo(request_id=error.request_id or request_id or uuid4().hex),
    ]
    if error.field_violations:
        bad = details.BadRequest()
        for violation in error.field_violations:
            fill(bad.field_violations.add(), violation)
        parts.append(bad)
    if error.retry_after is not None:
        retry = details.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after * 1e9))
        parts.append(retry)
    status = Status(code=code, message=error.message)
    for part in parts:
        packed = AnyMessage()
        packed.Pack(part)
        status.details.append(packed)
    return status


def trailing_metadata(error: RpcError, status: Status) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata of a failed call."""
    trailing: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if error.retry_after is not None:
        trailing.append(("grpc-retry-pushback-ms", str(round(error.retry_after * 1000))))
    if error.timings is not None:
        trailing.append(server_timing(fill(WireTimings(), error.timings)))
    return tuple(trailing)
