"""The health service, whose watches end when the server leaves."""

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

from doherty_service.transport._services import SERVICES


class HealthServicer(health.aio.HealthServicer):
    """gRPC's own health service. Its watches would run for ever, and be cut off before the last status is sent."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[asyncio.Task[Any]] = set()
        self._is_leaving = False

    async def tell(self, *, serving: bool) -> None:
        """Sets the health of the server as a whole and of each service of the contract."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            await self.set(service, status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802 - gRPC's name
        """Tells a status whenever it changes, until the caller leaves or the server does."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("gRPC runs each RPC in a task")
        self._watches.add(task)
        try:
            await super().Watch(request, context)
        except asyncio.CancelledError:
            if not self._is_leaving:
                raise
            task.uncancel()  # it ends with OK, behind the last status
        finally:
            self._watches.discard(task)

    def end_watches(self) -> None:
        """Ends all watches; their callers have been told the last status."""
        self._is_leaving = True
        for task in self._watches:
            task.cancel()
