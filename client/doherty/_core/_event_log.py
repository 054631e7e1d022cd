"""Notes what happens to a stream."""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import grpc

if TYPE_CHECKING:
    from doherty._core._log import AttemptLog

Kind = Literal["started", "lost", "resumed"]

REQUEST_ID: Final = "doherty-request-id"
"""The initial metadata that a server sends when it has admitted a request and has nothing of the answer yet."""


class Happened(NamedTuple):
    """What `_events` makes an event of when a caller asks for it. Its classes take time to define."""

    kind: Kind
    target: str
    text: str
    """The id of the request; of a loss, what was said."""


class EventLog:
    """Notes what happens to a stream besides its deltas, over all its attempts."""

    is_admitted = False
    """Whether the server of the running attempt has admitted the request."""
    request_id: str | None = None
    """The id from the last server that admitted the request; None if none has."""
    _target = ""

    def __init__(self, log: "AttemptLog") -> None:
        """`log` has the log lines of the call."""
        self._log = log
        self.unread: deque[Happened] = deque()
        """What was not reported yet."""

    def begin_attempt(self, target: str) -> None:
        """Notes where the next attempt goes."""
        self._target = target
        self.is_admitted = False

    def read_metadata(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
        """Notes the initial metadata of the running attempt, and returns whether they say that it was admitted.

        A server that does not say so, such as an older one, sends them with its first message or its status.
        """
        for name, value in metadata or ():
            if name == REQUEST_ID and isinstance(value, str):
                self.admit(value)
                return True
        return False

    def admit(self, request_id: str) -> None:
        """Notes that the running attempt was admitted: its server said so, or sent something of the answer."""
        if self.is_admitted:
            return
        self.is_admitted = True
        kind: Kind = "started" if self.request_id is None else "resumed"
        self.unread.append(Happened(kind, self._target, request_id))
        self.request_id = self._log.request_id = request_id

    def lose(self, error: BaseException | None) -> None:
        """Notes that the running attempt failed and another one follows.

        Args:
            error: What gRPC raised; None for a stream that ended without a summary.
        """
        if not self.is_admitted:
            return
        from doherty._core._status import read_status  # noqa: PLC0415 - only a failed call pays for it

        status = read_status(error if isinstance(error, grpc.RpcError) else None)
        self.unread.append(Happened("lost", self._target, status.message))
