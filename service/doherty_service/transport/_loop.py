"""The server's event loop."""

from typing import Any

from doherty_service._batch import BatchFuture
from doherty_service.rpc import note_handler
from doherty_service.transport._poller import Loop

_HANDLER_TASK = "HandleExceptions["
"""The beginning of the names of the tasks in which grpc.aio runs handlers."""


class ServerLoop(Loop):
    """Frees the memory of failed batches, and records which of grpc.aio's tasks waits for the end of which handler.

    `EndWatch` needs to know the latter to end an RPC whose caller does not read.
    """

    def create_future(self) -> BatchFuture:
        """Creates a future."""
        return BatchFuture(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, **options: Any) -> Any:
        """Creates a task."""
        task = super().create_task(coro, name=name, **options)
        if name is not None and name.startswith(_HANDLER_TASK):
            note_handler(task)
        return task
