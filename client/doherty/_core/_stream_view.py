"""What can be read of a stream at any time. Both kinds of streams have it."""

from doherty._core._results import ReplyMetadata, Timings
from doherty._core._stream import StreamState


class StreamView:
    """The properties of a stream that do not depend on how it is read."""

    _state: StreamState

    @property
    def text(self) -> str:
        """The text received so far; it is kept after an error."""
        return self._state.text

    @property
    def request_id(self) -> str | None:
        """The id under which the server logs the request; before the admission is known, the caller's own or None."""
        return self._state.request_id

    @property
    def timings(self) -> Timings | None:
        """The server's timings; None until the answer is complete."""
        return self._state.timings

    @property
    def metadata(self) -> ReplyMetadata:
        """The initial metadata after the first message, and the trailing metadata after the whole answer.

        If the answer continued on another server, they come from the last server.
        """
        return self._state.metadata

    @property
    def resumed(self) -> int:
        """How many times the answer was interrupted and continued, on another server or on the same one."""
        return self._state.resumed
