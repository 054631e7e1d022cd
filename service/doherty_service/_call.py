"""What the path of a request needs of a transport."""

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import grpc

if TYPE_CHECKING:
    import asyncio

Metadata = Iterable[tuple[str, str | bytes]]
"""The metadata of a call, in gRPC's format."""


class Call(Protocol):
    """One RPC, as each transport presents it. Its names are those of grpc.aio's ServicerContext where that has them.

    All methods are called on the event loop. A handler that is cancelled has lost its caller. What fails because the
    caller has left raises grpc.aio.InternalError.
    """

    @property
    def has_message(self) -> bool:
        """Whether `read` would return a message at once."""
        ...

    @property
    def is_read(self) -> bool:
        """Whether all messages of the caller were read, and no more can come. False if that is not known."""
        ...

    def peer(self) -> str:
        """The caller's address, for example "ipv4:127.0.0.1:50000"."""
        ...

    def accept(self) -> None:
        """Called when the caller has passed authentication."""
        ...

    def time_remaining(self) -> float | None:
        """The seconds until the caller's deadline; None if there is no deadline."""
        ...

    def invocation_metadata(self) -> Any:
        """The caller's metadata."""
        ...

    def code(self) -> Any:
        """The code of the status, if one was set: a number or a member of grpc.StatusCode."""
        ...

    def set_code(self, code: grpc.StatusCode) -> None:
        """Sets the code of the status."""
        ...

    def set_details(self, details: str) -> None:
        """Sets the message of the status."""
        ...

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Sets what is sent with the status OK."""
        ...

    def read(self) -> Coroutine[Any, Any, Any]:
        """Returns the next message, or grpc.aio.EOF after the last one."""
        ...

    def send_initial_metadata(self, metadata: Metadata) -> Coroutine[Any, Any, None]:
        """Sends the initial metadata before the first message; does nothing if they are sent, or are being sent."""
        ...

    def write(self, message: Any) -> Coroutine[Any, Any, None]:
        """Sends a message; returns once the transport has taken it."""
        ...

    def start_write(self, message: Any) -> Coroutine[Any, Any, None]:
        """Does the same as `write`, but must be driven by hand.

        It may also return without an error although the write has failed: then `failure_of` returns the error of the
        last future that it awaited.
        """
        ...

    def give_up(self, write: "asyncio.Future[Any]") -> bool:
        """Ends a started write that awaits the given future. Returns False if the future is done already."""
        ...

    def put(self, message: bytes) -> bool:
        """Sends a message if the transport takes it at once; returns False if `write` must be used."""
        ...

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Coroutine[Any, Any, None]:
        """Ends the call with a status.

        Raises:
            grpc.aio.AbortError: The status was set. With grpc.aio, this exception ends a handler.
            grpc.aio.InternalError: The call has already ended.
        """
        ...

    def follow_reply(self) -> None:
        """Called when the handler is about to return its only reply."""
        ...

    def follow_end(self, sent: Callable[["Call"], None], closed: Callable[["Call"], None]) -> None:
        """Called when the handler is done. Calls `sent` once the transport has taken the rest, and `closed` at the end.

        If the caller leaves, `sent` is called, too.
        """
        ...

    @property
    def ended_with(self) -> grpc.StatusCode | None:
        """The status with which the transport itself ended the call; None if it did not, or if that is not known."""
        ...

    @property
    def last_read(self) -> float:
        """When the caller was last seen to read (`time.monotonic()`); 0 if that is not known."""
        ...

    @property
    def left_early(self) -> bool:
        """Whether the caller left before the transport had taken the only reply."""
        ...

    def reset(self) -> None:
        """Ends a call whose caller does not read its status."""
        ...
