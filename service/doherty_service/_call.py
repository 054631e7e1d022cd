"""What the path of a request needs of a transport."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

import grpc

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

    def peer(self) -> str:
        """The caller's address, for example "ipv4:127.0.0.1:50000"."""
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
        """Sends the initial metadata before the first message."""
        ...

    def write(self, message: Any) -> Coroutine[Any, Any, None]:
        """Sends a message; returns once the transport has taken it."""
        ...

    def put(self, message: bytes) -> bool:
        """Sends a message if the transport takes it at once; returns False if `write` must be used."""
        ...

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Coroutine[Any, Any, None]:
        """Ends the call with a status.

        Raises:
            grpc.aio.AbortError: Always.
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
