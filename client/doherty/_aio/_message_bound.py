"""Finds the largest message that a server accepts."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from doherty._aio._loop import cancels_task
from doherty.v1.model_pb2 import GetModelRequest

if TYPE_CHECKING:
    from doherty._aio._connection import AsyncConnection
    from doherty._core._metadata import Pairs

_LOG: Final = logging.getLogger("doherty")

_MIN_BYTES: Final = 1024
"""Every server accepts this, because its setting cannot be lower."""

_MAX_BYTES: Final = 1 << 20
"""The largest message to send. It is well below the servers' default, because a server handles a message as a whole."""

_SECONDS: Final = 10.0
"""The timeout of GetModel."""

_TOO_LARGE: Final = "SERVER: Received message larger than max"
"""The start of the status message that gRPC's core sends with RESOURCE_EXHAUSTED."""


class MessageBound:
    """The size limit for messages of MultiplexGenerate. A larger one would end the RPC with all its requests.

    It starts with the size that every server accepts. If something is larger, the server is asked for its limit.
    """

    def __init__(self, connection: "AsyncConnection") -> None:
        """Does not ask the server yet."""
        self.bytes = _MIN_BYTES
        """The known limit."""
        self._connection = connection
        self._question: asyncio.Task[None] | None = None
        self._was_wrong = False

    def want(self, size: int, metadata: "Pairs") -> None:
        """Asks the server for its limit if a message of `size` bytes exceeds the known one.

        Args:
            size: The size of the message.
            metadata: The metadata for GetModel, which contains the key.
        """
        if size > self.bytes and self._question is None:
            self._question = self._connection.tasks.start(self._ask(metadata))

    def forget(self) -> None:
        """Resets the limit, because the next RPC may reach another server."""
        self.close()
        self._question = None
        self.bytes = _MIN_BYTES

    def learn(self, error: BaseException) -> bool:
        """Learns from the error of an RPC, and returns whether a message was too large.

        That happens if several servers with different limits have one name. From then on, only small messages are sent.
        """
        if (
            isinstance(error, grpc.aio.AioRpcError)
            and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            and (error.details() or "").startswith(_TOO_LARGE)
        ):
            self._was_wrong = True
            self.bytes = _MIN_BYTES
            return True
        return False

    def close(self) -> None:
        """Cancels a running GetModel."""
        if self._question is not None:
            self._question.cancel()

    async def _ask(self, metadata: "Pairs") -> None:
        try:
            model = await self._connection.generation.GetModel(GetModelRequest(), timeout=_SECONDS, metadata=metadata)
        except (asyncio.CancelledError, grpc.RpcError, grpc.aio.UsageError) as error:
            if cancels_task(error):
                raise
            _LOG.debug("the server does not tell how large a message it takes: %r", error)
            return
        if not self._was_wrong:
            self.bytes = max(_MIN_BYTES, min(_MAX_BYTES, model.limits.max_message_bytes))
