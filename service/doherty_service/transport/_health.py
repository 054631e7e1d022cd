"""The health service."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty_service.transport._services import SERVICES

_Status = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Reports the health of the server and of each service of the contract.

    gRPC's own servicer holds a lock while it writes to a watcher, so that a watcher that does not read blocks the
    others; and its watches never end.
    """

    def __init__(self) -> None:
        self._status = _Status.NOT_SERVING
        self._changed = asyncio.Event()
        """Set at the next change, and then replaced."""
        self._is_withdrawn = False
        self._is_leaving = False

    def set_serving(self, *, serving: bool) -> None:
        """Sets the health, unless `withdraw` was called."""
        if not self._is_withdrawn:
            self._set(_Status.SERVING if serving else _Status.NOT_SERVING)

    def withdraw(self) -> None:
        """Sets the health to NOT_SERVING permanently."""
        self._is_withdrawn = True
        self._set(_Status.NOT_SERVING)

    def end_watches(self) -> None:
        """Ends all watches with OK, after they have got the last status."""
        self._is_leaving = True
        self._set(self._status)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802 - gRPC's name
        """Returns the health of a service."""
        if not _is_known(request.service):
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _Status(status=self._status)

    async def Watch(  # noqa: N802 - gRPC's name
        self,
        request: health_pb2.HealthCheckRequest,
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Yields the health of a service and its changes, until the caller leaves or the server shuts down."""
        is_known = _is_known(request.service)
        sent: int | None = None
        while True:
            changed = self._changed
            status = self._status if is_known else _Status.SERVICE_UNKNOWN
            if status != sent:
                sent = status
                yield _Status(status=status)
            elif self._is_leaving:
                return
            else:
                await changed.wait()

    def _set(self, status: Any) -> None:
        self._status = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _is_known(service: str) -> bool:
    """Whether there is a service of this name. The empty name is the whole server."""
    return not service or service in SERVICES
