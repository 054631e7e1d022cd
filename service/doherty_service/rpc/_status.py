"""Sends the status of an RPC and the metadata that goes with it."""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from doherty_service._call import Call
from doherty_service._errors import pushback, to_status
from doherty_service.rpc._failures import note_failure
from doherty_service.telemetry import RequestRecord

_LOAD = "endpoint-load-metrics-bin"
"""The trailing metadata with the server's load, as named by gRPC's proposal A51."""

_SEND_SECONDS = 1.0
"""Maximum time for which a handler waits until its status is sent."""


class StatusNotReadError(grpc.aio.AbortError):
    """The caller has not read the messages that precede the status. It gets the status when it has read them."""


def trailing_metadata(
    record: RequestRecord, load: Callable[[], bytes | None] | None
) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata that goes with every status: the timings, and the load if it is known and the caller may see it."""
    timing = record.server_timing()
    timings: tuple[tuple[str, str | bytes], ...] = (("server-timing", timing),) if timing else ()
    report = None if load is None or record.is_unauthenticated else load()
    return timings if report is None else (*timings, (_LOAD, report))


async def abort(
    error: Exception, record: RequestRecord, call: Call, load: Callable[[], bytes | None] | None
) -> NoReturn:
    """Ends an RPC with the status of an error.

    Raises:
        grpc.aio.AbortError: The status was set. With grpc.aio, this exception ends a handler.
        grpc.aio.InternalError: The call has already ended.
    """
    service_error = note_failure(error, record)
    status = to_status(service_error, record.request_id)
    trailing = [("grpc-status-details-bin", status.SerializeToString()), *trailing_metadata(record, load)]
    if (milliseconds := pushback(service_error)) is not None:
        trailing.append(("grpc-retry-pushback-ms", milliseconds))
    try:
        async with asyncio.timeout(_SEND_SECONDS):
            await call.abort(service_error.code, status.message, tuple(trailing))
    except TimeoutError:
        raise StatusNotReadError from None
    raise AssertionError("abort always raises")


def status_code(call: Call) -> grpc.StatusCode:
    """The code of an aborted RPC, which grpc.aio stores as a number or as a member of the enum."""
    code: Any = call.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next(member for member in grpc.StatusCode if member.value[0] == code)
