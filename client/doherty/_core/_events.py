"""What happens to a stream."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic

import grpc

from doherty._core._results import Delta, Generation, ParsedT_co

if TYPE_CHECKING:
    from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """A server has admitted the request."""

    target: str
    """The server, as the client knows it."""
    request_id: str
    """The id under which it logs the request."""


@dataclass(frozen=True, slots=True)
class ServerLost:
    """The server that had admitted the request is gone, or cannot go on. The client looks for another one."""

    target: str
    """The server, as the client knows it."""
    message: str
    """What gRPC or the server said."""


@dataclass(frozen=True, slots=True)
class StreamResumed:
    """A server goes on with the answer, right behind what was received."""

    target: str
    """The server, as the client knows it: another one, or the same one again."""
    request_id: str
    """The id under which it logs the request."""


@dataclass(frozen=True, slots=True)
class StreamFinished(Generic[ParsedT_co]):
    """The answer is complete."""

    generation: Generation[ParsedT_co]
    """What `result()` returns."""


StreamEvent: "TypeAlias" = StreamStarted | Delta | ServerLost | StreamResumed | StreamFinished[ParsedT_co]
"""An event of a stream; a `Delta` is what a stream's own iterator gives."""

REQUEST_ID: Final = "doherty-request-id"
"""The initial metadata that a server sends when it has admitted a request and has nothing of the answer yet."""


class EventLog:
    """Notes what happens to a stream besides its deltas, over all its attempts."""

    def __init__(self) -> None:
        self.unread: deque[StreamStarted | ServerLost | StreamResumed] = deque()
        """What was not reported yet."""
        self.is_admitted = False
        """Whether the server of the running attempt has admitted the request."""
        self.request_id: str | None = None
        """The id from the last server that admitted the request; None if none has."""
        self._target = ""

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
        event = StreamStarted if self.request_id is None else StreamResumed
        self.unread.append(event(self._target, request_id))
        self.request_id = request_id

    def lose(self, error: BaseException | None) -> None:
        """Notes that the running attempt failed and another one follows.

        Args:
            error: What gRPC raised; None for a stream that ended without a summary.
        """
        if not self.is_admitted:
            return
        from doherty._core._status import read_status  # noqa: PLC0415 - only a failed call pays for it

        status = read_status(error if isinstance(error, grpc.RpcError) else None)
        self.unread.append(ServerLost(self._target, status.message))
