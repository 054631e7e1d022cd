"""How large a message a server takes."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from doherty._aio._loop import cancels_task
from doherty.v1.model_pb2 import GetModelRequest

if TYPE_CHECKING:
    from doherty.v1.generation_service_pb2_grpc import GenerationServiceAsyncStub

_LOG: Final = logging.getLogger("doherty")

_LEAST_BYTES: Final = 1024
"""What every server takes: no less can be set."""

_MOST_BYTES: Final = 1 << 20
"""What is sent at most, well below what a server takes by default: what shares a message is received together."""

_SECONDS: Final = 10.0
"""How long the server's answer is waited for."""

_TOO_LARGE: Final = "SERVER: Received message larger than max"
"""How the core of the server's gRPC begins to say so, with RESOURCE_EXHAUSTED."""


class MessageBound:
    """How large the messages of MultiplexGenerate may be: one that is too large ends the RPC, and all requests on it.

    At first it is what every server takes. The server is asked for its own bound when something is larger than that.
    """

    def __init__(self, stub: "GenerationServiceAsyncStub", metadata: tuple[tuple[str, str], ...]) -> None:
        """Asks nothing yet.

        Args:
            stub: Makes the call.
            metadata: Goes with it; has the key.
        """
        self.bytes = _LEAST_BYTES
        """The bound as far as it is known."""
        self._stub = stub
        self._metadata = metadata
        self._question: asyncio.Task[None] | None = None
        self._was_wrong = False

    def want(self, size: int) -> None:
        """Notes that a message of so many bytes would be of use."""
        if size > self.bytes and self._question is None:
            self._question = asyncio.create_task(self._ask())

    def forget(self) -> None:
        """Notes that the server may be another one from now on."""
        self.close()
        self._question = None
        self.bytes = _LEAST_BYTES

    def learn(self, error: BaseException) -> bool:
        """Learns from how an RPC ended, and tells whether it did because a message was too large.

        That happens where several servers have one name, and unlike bounds. No large message is sent there any more.
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
        """Does not wait for the server's answer any more."""
        if self._question is not None:
            self._question.cancel()

    async def _ask(self) -> None:
        try:
            model = await self._stub.GetModel(GetModelRequest(), timeout=_SECONDS, metadata=self._metadata)
        except (asyncio.CancelledError, grpc.RpcError, grpc.aio.UsageError) as error:
            if cancels_task(error):
                raise
            _LOG.debug("the server does not tell how large a message it takes: %r", error)
            return
        if not self._was_wrong:
            self.bytes = max(_LEAST_BYTES, min(_MOST_BYTES, model.limits.max_message_bytes))
