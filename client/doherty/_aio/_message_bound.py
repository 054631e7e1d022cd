"""How large a message a server takes."""

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

_LEAST_BYTES: Final = 1024
"""Every server accepts this: it cannot be set to less."""

_MOST_BYTES: Final = 1 << 20
"""The most to send in a message, well below the default of servers: a server handles a message as a whole."""

_SECONDS: Final = 10.0
"""The timeout of the question."""

_TOO_LARGE: Final = "SERVER: Received message larger than max"
"""How the message of gRPC's core begins, with RESOURCE_EXHAUSTED."""


class MessageBound:
    """The size limit for messages of MultiplexGenerate. A larger one would end the RPC with all its requests.

    It begins with what every server accepts. If something is larger, the server is asked for its limit.
    """

    def __init__(self, connection: "AsyncConnection") -> None:
        """Does not ask the server yet."""
        self.bytes = _LEAST_BYTES
        """The limit as far as it is known."""
        self._connection = connection
        self._question: asyncio.Task[None] | None = None
        self._was_wrong = False

    def want(self, size: int, metadata: "Pairs") -> None:
        """Asks the server for its limit if a message of `size` bytes exceeds the known one.

        Args:
            size: The size of the message.
            metadata: Goes with the question; has the key.
        """
        if size > self.bytes and self._question is None:
            self._question = self._connection.tasks.start(self._ask(metadata))

    def forget(self) -> None:
        """Resets the limit, because the next RPC may reach another server."""
        self.close()
        self._question = None
        self.bytes = _LEAST_BYTES

    def learn(self, error: BaseException) -> bool:
        """Learns from the error of an RPC, and returns whether a message was too large.

        That happens if several servers with different limits have one name. Then only small messages are sent.
        """
        if (
            isinstance(error, grpc.aio.AioRpcError)
            and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            and (error.details() or "").startswith(_TOO_LARGE)
        ):
            self._was_wrong = True
            self.bytes = _LEAST_BYTES
            return True
        return False

    def close(self) -> None:
        """Cancels the question."""
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
            self.bytes = max(_LEAST_BYTES, min(_MOST_BYTES, model.limits.max_message_bytes))
