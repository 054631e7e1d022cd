"""The events of a stream."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from doherty._core._results import Delta, Generation, ParsedT_co

if TYPE_CHECKING:
    from typing import TypeAlias

    from doherty._core._event_log import Happened, Kind


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """A server has admitted the request."""

    target: str = ""
    """The server, as the client knows it."""
    request_id: str = ""
    """The id under which it logs the request."""


@dataclass(frozen=True, slots=True)
class ServerLost:
    """The server that had admitted the request was lost or cannot continue. The client looks for another one."""

    target: str = ""
    """The server, as the client knows it."""
    message: str = ""
    """The error message of gRPC or of the server."""


@dataclass(frozen=True, slots=True)
class StreamResumed:
    """A server continues the answer, exactly after the part that was received."""

    target: str = ""
    """The server, as the client knows it: another one, or the same one again."""
    request_id: str = ""
    """The id under which it logs the request."""


@dataclass(frozen=True, slots=True)
class StreamFinished(Generic[ParsedT_co]):
    """The answer is complete."""

    generation: Generation[ParsedT_co] = field(default_factory=Generation)
    """The answer, as returned by `result()`."""


StreamEvent: "TypeAlias" = StreamStarted | Delta | ServerLost | StreamResumed | StreamFinished[ParsedT_co]
"""An event of a stream. The stream's own iterator yields only the `Delta` events."""

_CLASSES: "dict[Kind, type[StreamStarted | ServerLost | StreamResumed]]" = {
    "started": StreamStarted,
    "lost": ServerLost,
    "resumed": StreamResumed,
}


def make_event(happened: "Happened") -> StreamStarted | ServerLost | StreamResumed:
    """Creates the event."""
    return _CLASSES[happened.kind](happened.target, happened.text)
