"""Turns the exceptions of handlers into errors with a status, and logs them."""

import logging

import grpc

from doherty_engine import EngineFailedError
from doherty_service._call import Call
from doherty_service._errors import ServiceError, as_service_error
from doherty_service.rpc._stacks import Stacks
from doherty_service.telemetry import AbortCause, RequestRecord

_log = logging.getLogger("doherty.error")

_CAUSES = {
    "DEADLINE_PASSED": AbortCause.DEADLINE,
    "DRAINED": AbortCause.DRAIN,
    "ENGINE_FAILED": AbortCause.ENGINE,
    "STALLED_READER": AbortCause.STALLED_READER,
}
"""Error reasons that mean that a running request was ended early."""

_stacks = Stacks()

_CLOCK_SLACK = 0.05
"""Seconds by which the caller's clock may be ahead of ours: it resets the call when its deadline passes."""


def note_failure(error: Exception, record: RequestRecord) -> ServiceError:
    """Writes the cause of a failure to the record and the log, and returns the error to send to the caller."""
    service_error = as_service_error(error)
    record.reason = service_error.reason
    if record.is_answer and record.abort_cause is None:
        record.abort_cause = _CAUSES.get(service_error.reason)
    if not isinstance(error, ServiceError):
        _log_error(error, service_error, record)
    error.__traceback__ = None  # its frames refer to the request and the error: a cycle that may keep megabytes
    return service_error


def note_leaving(record: RequestRecord, call: Call | None = None) -> grpc.StatusCode:
    """Returns and records why a caller has left: it cancelled, it was late, or the transport ended the call.

    `call` is the RPC of a request that shares it with others; by default, it is that of the record.
    """
    call = call or record.call
    time_left = record.time_left()
    is_late = time_left is not None and time_left <= _CLOCK_SLACK
    if record.is_answer and record.summarized is None and record.abort_cause is None:
        record.abort_cause = AbortCause.DEADLINE if is_late else AbortCause.CANCELLED
    if call is not None and call.ended_with is not None:
        record.reason = ""  # the caller got a status of the transport, which has no reason
        return call.ended_with
    return grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED


def _log_error(error: Exception, service_error: ServiceError, record: RequestRecord) -> None:
    """Logs failures on our side completely. Of an invalid request it logs only the fields: a text may quote the prompt.

    When an engine dies, all its requests fail at once. Only the first one is logged as an error, with its stack trace;
    the others have just their `request` lines. Other failures are logged for every request, the first with its stack.
    """
    if service_error.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE):
        is_new = _stacks.is_new(error)
        if is_new or not isinstance(error, EngineFailedError):
            fields = {**record.log_fields, "error": str(error)}
            _log.error("error", extra={"fields": fields}, exc_info=error if is_new else None)
    else:
        violations = [violation.field for violation in service_error.violations]
        fields = {**record.log_fields, "reason": service_error.reason, "fields": violations}
        _log.debug("refused", extra={"fields": fields})
