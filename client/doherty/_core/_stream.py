"""What is known of a stream while it comes in."""

from time import perf_counter
from typing import TYPE_CHECKING

from doherty._core._errors import DohertyError, StreamError
from doherty._core._from_wire import delta_from_wire, generation_from_parts, timings_from_wire
from doherty._core._results import Delta, Generation, Timings, TokenLogprob

if TYPE_CHECKING:
    from doherty.v1.answer_pb2 import Start, Summary
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse


class StreamState:
    """Accumulates one stream, and says what it came to.

    Whoever reads the messages calls `feed` with each, and `end` or `fail` once.
    """

    def __init__(self, request_id: str | None) -> None:
        """`request_id` is the caller's own, if there is one."""
        self._started = perf_counter()
        self._elapsed = 0.0
        self._request_id = request_id
        self._start: Start | None = None
        self._summary: Summary | None = None
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._token_ids_known = True
        self._logprobs: list[TokenLogprob] = []
        self._logprobs_known = True
        self.ended = False
        """Whether there is nothing more to read."""
        self.failure: DohertyError | None = None
        """What the stream ended with, if not with a complete answer."""

    @property
    def complete(self) -> bool:
        """Whether the whole answer was received, whatever the transport does after that."""
        return self._summary is not None

    @property
    def text(self) -> str:
        """The text that was received."""
        return "".join(self._texts)

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The ids of the tokens that were received, None unless all of them are known."""
        return tuple(self._token_ids) or None if self._token_ids_known else None

    @property
    def request_id(self) -> str | None:
        """The server's word for it, or before that the caller's."""
        return self._start.request_id if self._start else self._request_id

    @property
    def timings(self) -> Timings | None:
        """The server's timings, once the answer is complete."""
        return timings_from_wire(self._summary.timings) if self._summary else None

    @property
    def begun(self) -> bool:
        """Whether something of the answer has come."""
        return self._start is not None

    def feed(self, message: "StreamGenerateResponse") -> Delta | None:
        """Takes a message in, and gives back what it adds to the answer."""
        if message.HasField("start"):
            self._start = message.start
        if message.HasField("summary"):
            self._summary = message.summary
            self._elapsed = perf_counter() - self._started
        if not message.HasField("delta"):
            return None
        delta = delta_from_wire(message.delta)
        self._texts.append(delta.text)
        if delta.token_count:
            self._token_ids_known &= delta.token_ids is not None
            self._logprobs_known &= delta.logprobs is not None
        self._token_ids += delta.token_ids or ()
        self._logprobs += delta.logprobs or ()
        return delta

    def end(self) -> None:
        """Notes that the server sends no more.

        Raises:
            StreamError: It had not sent a summary.
        """
        self.ended = True
        if not self.complete:
            self.failure = self.error("The stream was cut off: it ended without a summary.")
            raise self.failure

    def fail(self, failure: DohertyError) -> DohertyError:
        """Notes that nothing more can be read, and gives the reason back to be raised."""
        self.ended = True
        self.failure = failure
        return failure

    def error(self, message: str) -> StreamError:
        """Makes the error that carries what was received."""
        return StreamError(message, text=self.text, token_ids=self.token_ids, request_id=self.request_id)

    def generation(self) -> Generation:
        """The whole answer.

        Raises:
            DohertyError: The stream ended without one.
        """
        if self._start is None or self._summary is None:
            raise self.failure or self.error("The answer is not complete.")
        return generation_from_parts(
            self._start,
            self._summary,
            self._elapsed,
            text=self.text,
            token_ids=self.token_ids,
            logprobs=tuple(self._logprobs) or None if self._logprobs_known else None,
        )
