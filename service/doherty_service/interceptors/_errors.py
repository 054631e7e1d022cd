"""Turns what a handler raises into a status with details."""

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio

from doherty_service._errors import ServiceError, as_service_error, to_status
from doherty_service.interceptors._handlers import Around, Behavior, Method, ServicerContext
from doherty_service.latency import AbortCause, current_call

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


class ErrorInterceptor(Around):
    """Ends a call that raised with the status that the error stands for."""

    def wrap(self, behavior: Behavior, method: Method) -> Behavior:  # noqa: ARG002 - the call knows its method
        """Runs the behavior, and turns what it raises into a status."""

        async def mapped(request: Any, context: ServicerContext) -> Any:
            try:
                return await behavior(request, context)
            except (grpc.aio.AbortError, grpc.aio.InternalError):
                # The handler has set its own status, as the health service does, or the transport broke in a write.
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told a status, and the log all
                await self._abort(error, context)

        return mapped

    async def _abort(self, error: Exception, context: ServicerContext) -> None:
        call = current_call()
        told = as_service_error(error)
        call.reason = told.reason
        if call.is_answer and call.abort_cause is None:
            call.abort_cause = _CAUSES.get(told.reason)
        if not isinstance(error, ServiceError):
            expected = told.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)
            fields = {**call.names, "error": str(error)}
            level = logging.DEBUG if expected else logging.ERROR
            _log.log(level, "error", extra={"fields": fields}, exc_info=None if expected else error)
        status = to_status(told, call.request_id)
        trailing: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
        if timing := call.server_timing():
            trailing.append(("server-timing", timing))
        try:
            async with asyncio.timeout(_TELL_SECONDS):
                await context.abort(told.code, status.message, tuple(trailing))
        except TimeoutError:
            # It stands behind messages that the caller does not read, and goes out when it does.
            raise grpc.aio.AbortError from None
