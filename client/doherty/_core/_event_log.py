"""Records the events of a stream."""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import grpc

if TYPE_CHECKING:
    from doherty._core._log import AttemptLog

Kind = Literal["started", "lost", "resumed"]

REQUEST_ID: Final = "doherty-request-id"
"""The initial metadata with which a server reports that it has admitted a request, before the answer begins."""


class Happened(NamedTuple):
    """The data of an event. The event itself is created when a caller reads it: importing its classes takes time."""

    kind: Kind
    target: str
    text: str
    """The id of the request; for a lost server, the error message."""


class EventLog:
    """Records the events of a stream other than deltas, over all attempts."""

    is_admitted = False
    """Whether the server of the current attempt has admitted the request."""
    request_id: str | None = None
    """The request id from the last server that admitted the request; None if no server has."""
    _target = ""

    def __init__(self, log: "AttemptLog") -> None:
        """`log` writes the log lines of the call."""
        self._log = log
        self.unread: deque[Happened] = deque()
        """Events that the caller has not read yet."""

    def begin_attempt(self, target: str) -> None:
        """Records the server of the next attempt."""
        self._target = target
        self.is_admitted = False

    def read_metadata(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
        """Records the initial metadata of the current attempt. Returns whether it says that the request was admitted.

        Older servers do not say so. They send the initial metadata with the first message or with the status.
        """
        for name, value in metadata or ():
            if name == REQUEST_ID and isinstance(value, str):
                self.admit(value)
                return True
        return False

    def admit(self, request_id: str) -> None:
        """Records that the request was admitted: the server reported it, or sent a part of the answer."""
        if self.is_admitted:
            return
        self.is_admitted = True
        kind: Kind = "started" if self.request_id is None else "resumed"
        self.unread.append(Happened(kind, self._target, request_id))
        self.request_id = self._log.request_id = request_id

    def lose(self, error: BaseException | None) -> None:
        """Records that the current attempt failed and another one follows.

        Args:
            error: The exception that gRPC raised; None for a stream that ended without a summary.
        """
        if not self.is_admitted:
            return
        from doherty._core._status import read_status  # noqa: PLC0415 - needed only after a failure

        status = read_status(error if isinstance(error, grpc.RpcError) else None)
        self.unread.append(Happened("lost", self._target, status.message))
