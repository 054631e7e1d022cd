"""Turns what a handler raises into a status with details."""

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio

from doherty_service._errors import ServiceError, UnsupportedMethodError, as_service_error, to_status
from doherty_service.interceptors._handlers import Around, Behavior, CallContext, Method
from doherty_service.latency import AbortCause, Call, current_call

_log = logging.getLogger("doherty.error")
_CAUSES = {
    "DEADLINE_PASSED": AbortCause.DEADLINE,
    "DRAINED": AbortCause.DRAIN,
    "ENGINE_FAILED": AbortCause.ENGINE,
    "STALLED_READER": AbortCause.STALLED_READER,
}
"""The reasons that mean that a request under way was ended early."""

_TELL_SECONDS = 1.0
"""How long a handler stays for a status to leave."""


class UntoldError(grpc.aio.AbortError):
    """The status stands behind messages that the caller does not read, and goes out when it does."""


class ErrorInterceptor(Around):
    """Ends a call that raised with the status that the error stands for."""

    def wrap(self, behavior: Behavior, method: Method) -> Behavior:  # noqa: ARG002 - the call knows its method
        """Runs the behavior, and turns what it raises into a status."""

        async def mapped(request: Any, context: CallContext) -> Any:
            try:
                return await behavior(request, context)
            except (grpc.aio.AbortError, grpc.aio.InternalError):
                # The handler has set its own status, as the health service does, or the transport broke in a write.
                raise
            except NotImplementedError as error:
                # So does the generated base of a service for a method that its servicer lacks, as health's List.
                is_lacking = context.code() is grpc.StatusCode.UNIMPLEMENTED
                await self._abort(UnsupportedMethodError() if is_lacking else error, context)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told a status, and the log all
                await self._abort(error, context)

        return mapped

    async def _abort(self, error: Exception, context: CallContext) -> None:
        call = current_call()
        told = as_service_error(error)
        call.reason = told.reason
        if call.is_answer and call.abort_cause is None:
            call.abort_cause = _CAUSES.get(told.reason)
        if not isinstance(error, ServiceError):
            _log_error(error, told, call)
        status = to_status(told, call.request_id)
        trailing: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
        if timing := call.server_timing():
            trailing.append(("server-timing", timing))
        try:
            async with asyncio.timeout(_TELL_SECONDS):
                await context.abort(told.code, status.message, tuple(trailing))
        except TimeoutError:
            raise UntoldError from None


def _log_error(error: Exception, told: ServiceError, call: Call) -> None:
    """Logs all of what failed on our side; of what is wrong with a request only where, for the text may quote it."""
    if told.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE):
        _log.error("error", extra={"fields": {**call.names, "error": str(error)}}, exc_info=error)
    else:
        fields = {**call.names, "reason": told.reason, "fields": [one.field for one in told.violations]}
        _log.debug("refused", extra={"fields": fields})
