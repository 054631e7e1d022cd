"""The server's event loop."""

from typing import Any

from doherty_service.rpc import note_handler
from doherty_service.transport._poller import Loop

_HANDLER_TASK = "HandleExceptions["
"""How the names of the tasks begin in which grpc.aio runs handlers."""


class ServerLoop(Loop):
    """Notes which task of gRPC's waits for the end of which handler.

    Nothing else can end an RPC whose caller does not read.
    """

    def create_task(self, coro: Any, *, name: str | None = None, **options: Any) -> Any:
        """Makes a task."""
        task = super().create_task(coro, name=name, **options)
        if name is not None and name.startswith(_HANDLER_TASK):
            note_handler(task)
        return task
