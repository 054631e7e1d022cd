"""The health service: tells the state of the server to those who ask, and its changes to those who watch."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty_service.transport._services import SERVICES

_Status = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Tells the health of the server as a whole and of each service of the contract.

    gRPC's own servicer holds a lock while it writes to a watcher, so that one that does not read keeps the others from
    hearing of a change; and its watches never end.
    """

    def __init__(self) -> None:
        """Nothing serves yet."""
        self._status = _Status.NOT_SERVING
        self._changed = asyncio.Event()
        """Set at the next change, and then another one."""
        self._is_withdrawn = False
        self._is_leaving = False

    def tell(self, *, serving: bool) -> None:
        """Sets the health, unless it was withdrawn for good."""
        if not self._is_withdrawn:
            self._set(_Status.SERVING if serving else _Status.NOT_SERVING)

    def withdraw(self) -> None:
        """Tells that nothing serves, from now on and whatever comes."""
        self._is_withdrawn = True
        self._set(_Status.NOT_SERVING)

    def end_watches(self) -> None:
        """Ends all watches with OK, behind the last status."""
        self._is_leaving = True
        self._set(self._status)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802 - gRPC's name
        """Tells the status of a service."""
        if not _is_known(request.service):
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _Status(status=self._status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802 - gRPC's name
        """Tells a status and its changes, until the caller leaves or the server does."""
        is_known = _is_known(request.service)
        told: int | None = None
        while True:
            changed = self._changed
            status = self._status if is_known else _Status.SERVICE_UNKNOWN
            if status != told:
                told = status
                await context.write(_Status(status=status))
            elif self._is_leaving:
                return
            else:
                await changed.wait()

    def _set(self, status: Any) -> None:
        self._status = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _is_known(service: str) -> bool:
    """Whether there is a service of that name; the empty one is the server as a whole."""
    return not service or service in SERVICES
