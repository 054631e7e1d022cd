"""What happens to a stream."""

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
    """The server that had admitted the request is gone, or cannot go on. The client looks for another one."""

    target: str = ""
    """The server, as the client knows it."""
    message: str = ""
    """What gRPC or the server said."""


@dataclass(frozen=True, slots=True)
class StreamResumed:
    """A server goes on with the answer, right behind what was received."""

    target: str = ""
    """The server, as the client knows it: another one, or the same one again."""
    request_id: str = ""
    """The id under which it logs the request."""


@dataclass(frozen=True, slots=True)
class StreamFinished(Generic[ParsedT_co]):
    """The answer is complete."""

    generation: Generation[ParsedT_co] = field(default_factory=Generation)
    """What `result()` returns."""


StreamEvent: "TypeAlias" = StreamStarted | Delta | ServerLost | StreamResumed | StreamFinished[ParsedT_co]
"""An event of a stream; a `Delta` is what a stream's own iterator gives."""

_CLASSES: "dict[Kind, type[StreamStarted | ServerLost | StreamResumed]]" = {
    "started": StreamStarted,
    "lost": ServerLost,
    "resumed": StreamResumed,
}


def make_event(happened: "Happened") -> StreamStarted | ServerLost | StreamResumed:
    """The event for what has happened."""
    return _CLASSES[happened.kind](happened.target, happened.text)
