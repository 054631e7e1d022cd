"""Turns what a handler raises into a status with details."""

import logging

import grpc

from doherty_engine import EngineFailedError
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
"""The reasons that mean that a request under way was ended early."""

_stacks = Stacks()

_CLOCK_SLACK = 0.05
"""Seconds. A caller whose deadline passes resets the call, and its clock may be ahead of ours."""


def note_failure(error: Exception, record: RequestRecord) -> ServiceError:
    """Notes in the record and the log why a request fails, and returns what its caller is told."""
    told = as_service_error(error)
    record.reason = told.reason
    if record.is_answer and record.abort_cause is None:
        record.abort_cause = _CAUSES.get(told.reason)
    if not isinstance(error, ServiceError):
        _log_error(error, told, record)
    error.__traceback__ = None  # its frames have the request, and often the error: a cycle, which may hold megabytes
    return told


def note_leaving(record: RequestRecord) -> grpc.StatusCode:
    """Finds out why a caller has left: it cancelled, or its deadline passed."""
    left = record.time_left()
    is_late = left is not None and left <= _CLOCK_SLACK
    if record.is_answer and record.summarized is None and record.abort_cause is None:
        record.abort_cause = AbortCause.DEADLINE if is_late else AbortCause.CANCELLED
    return grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED


def _log_error(error: Exception, told: ServiceError, record: RequestRecord) -> None:
    """Logs all of what failed on our side; of a wrong request only the fields, because a text may quote the prompt.

    An engine that dies fails for all its requests at once: the first one tells the stack, and the others have no more
    than their `request` lines. Any other fault is told for every request, with its stack the first time.
    """
    if told.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE):
        is_new = _stacks.is_new(error)
        if is_new or not isinstance(error, EngineFailedError):
            fields = {**record.log_fields, "error": str(error)}
            _log.error("error", extra={"fields": fields}, exc_info=error if is_new else None)
    else:
        fields = {**record.log_fields, "reason": told.reason, "fields": [where.field for where in told.violations]}
        _log.debug("refused", extra={"fields": fields})
