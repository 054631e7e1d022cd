"""The state of a stream over all its attempts, and its decisions."""

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from doherty._core._actions import Actions, Pause, Receive
from doherty._core._dispatch import Dispatch, start_trace
from doherty._core._errors import DeadlineExceededError, DohertyError, RpcError, StreamError, UnavailableError
from doherty._core._event_log import EventLog
from doherty._core._from_wire import timings_from_wire
from doherty._core._received import ReceivedAnswer
from doherty._core._results import Delta, Generation, ReplyMetadata, Timings
from doherty._core._resume import resumed_request, shortened

if TYPE_CHECKING:
    from doherty._core._balance import Target
    from doherty._core._request import PlannedRequest
    from doherty._core._results import RawMetadata
    from doherty.v1.answer_pb2 import Start, Summary
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse
    from doherty.v1.request_pb2 import GenerateRequest


class StreamState:
    """One streamed answer over all its attempts: decides what to send next, and when the stream ends.

    The client that performs `actions` passes each message to `feed`.
    """

    # Defaults are attributes of the class, as in CallAttempts.
    first_delta: Delta | None = None
    """A delta that arrived while the caller waited for the admission."""
    awaits_metadata = True
    """Whether the metadata of the current attempt has not arrived yet. It precedes the first message."""
    ended = False
    """Whether the stream has ended."""
    failure: Exception | None = None
    """The error with which the stream ended; None if the answer is complete."""
    _target: "Target | None" = None
    _runs = False
    """Whether an attempt is running."""
    _awaits_start = True
    _elapsed = 0.0

    def __init__(self, dispatch: Dispatch, planned: "PlannedRequest") -> None:
        """Starts the call, and its timeout."""
        self._dispatch = dispatch
        self._planned = planned
        self._attempts = dispatch.begin_call(planned.options, resume=True)
        self._trace = self._attempts.trace = start_trace(planned.request, stream=True)
        self._started = perf_counter()
        request = planned.request
        output = request.output
        self._received = ReceivedAnswer(wants_ids=output.token_ids, wants_logprobs=output.HasField("top_logprobs"))
        if dispatch.settings.resume and not request.continue_from.text:
            # The token ids are needed to resume the answer.
            output.token_ids = True
        self.events = EventLog(self._attempts.log)
        """The events of the stream other than deltas."""
        self.patience = planned.first_token_timeout
        """The seconds that the reader waits for the next message; None means no limit."""

    @property
    def complete(self) -> bool:
        """Whether the whole answer was received. Later errors of the transport do not matter."""
        return self._received.summary is not None

    @property
    def begun(self) -> bool:
        """Whether a part of the answer was received."""
        return self._received.start is not None

    @property
    def text(self) -> str:
        """The received text."""
        return self._received.text

    @property
    def request_id(self) -> str | None:
        """The request id from the server; before the admission is known, that of the caller."""
        if (start := self._received.start) is not None:
            return start.request_id
        return self.events.request_id or self._planned.request.request_id or None

    @property
    def timings(self) -> Timings | None:
        """The server's timings, once the answer is complete."""
        summary = self._received.summary
        return timings_from_wire(summary.timings) if summary else None

    @property
    def metadata(self) -> ReplyMetadata:
        """The metadata of the last attempt, as far as it has arrived."""
        return self._attempts.reply_metadata

    def keep_metadata(self, initial: "RawMetadata", trailing: "RawMetadata") -> None:
        """Stores the metadata of the current attempt, in gRPC's format."""
        self.awaits_metadata = False
        self._attempts.keep_reply_metadata(initial, trailing)

    @property
    def resumed(self) -> int:
        """The number of times the answer was resumed."""
        return self._attempts.resumed

    def actions(self) -> Actions[None]:
        """Requests the answer, with retries and resumptions."""
        attempts, targets = self._attempts, self._dispatch.targets
        while not self.ended:
            try:
                request = self._missing_part()
                target = self._target = yield from self._dispatch.begin_attempt(attempts)
            except Exception as failure:  # noqa: BLE001 - the reader of the stream raises it
                self.fail(failure)
                return
            if self.ended:
                # The stream was closed while the key was fetched.
                targets.end(target)
                return
            request = shortened(request, attempts)
            self._awaits_start = self.awaits_metadata = True
            self.events.begin_attempt(target.name)
            error = yield self._dispatch.send("StreamGenerate", target, request, attempts)
            if error is None:
                self._runs = True
                error = yield Receive()
                self._runs = False
            else:
                targets.end(target)
            if self.complete:
                # An error after the summary does not matter.
                self.ended = True
            if self.ended:
                return
            try:
                pause = yield from self._dispatch.after(error, target, attempts, begun=self.begun)
            except Exception as failure:  # noqa: BLE001 - an error of an interceptor or of the SDK, raised as above
                self.fail(failure)
                return
            if isinstance(pause, DohertyError):
                self._give_up(pause, error)
                return
            self.events.lose(error)
            yield Pause(pause)

    def _missing_part(self) -> "GenerateRequest":
        """Returns the request for the whole answer, or for its missing rest.

        Raises:
            StreamError: The rest cannot be requested.
        """
        received, start = self._received, self._received.start
        if start is None:
            return self._planned.request
        request = resumed_request(
            self._planned.request,
            token_ids=received.known_ids,
            text=received.text,
            request_id=start.request_id,
            model=start.model,
        )
        if request is None:
            raise self._error("The answer was cut off and cannot be resumed: not all ids of its tokens are known.")
        return request

    def feed(self, message: "StreamGenerateResponse") -> Delta | None:
        """Adds a message, and returns its delta. This runs for every token, so it reads as few fields as possible."""
        if self._awaits_start and message.HasField("start"):
            self._begin(message.start)
        if message.HasField("summary"):
            self._complete(message.summary)
        delta = message.delta
        text, count = delta.text, delta.token_count
        if not count and not text and not message.HasField("delta"):
            return None
        return self._received.add(delta, text, count)

    def keep(self, message: "StreamGenerateResponse | None") -> None:
        """Adds the message that arrived while the caller waited for the admission; None means none did."""
        if message is not None:
            self.first_delta = self.feed(message)

    def take_first_delta(self) -> Delta | None:
        """Returns the delta that arrived while the caller waited for the admission; None if there is none."""
        delta, self.first_delta = self.first_delta, None
        return delta

    def waited(self, seconds: float) -> None:
        """Records that the caller stopped waiting for a message."""
        if self.patience is not None:
            self.patience = max(0.0, self.patience - seconds)

    def _begin(self, start: "Start") -> None:
        if not self.begun:
            self._trace.begin()
        self._awaits_start = False
        if self._target is not None:
            self._dispatch.targets.worked(self._target)
        self.patience = self._planned.idle_timeout
        self.events.admit(start.request_id)
        self._received.begin(start)
        self._attempts.progressed()

    def _complete(self, summary: "Summary") -> None:
        received = self._received
        received.complete(summary)
        self._elapsed = perf_counter() - self._started
        self._attempts.succeeded()
        self._attempts.log.succeed()
        if received.start is not None:
            self._trace.complete(received.start, summary, resumed=self.resumed)

    def fail(self, failure: Exception) -> None:
        """Ends the stream with an error. Only the first error counts."""
        if self.failure is not None:
            return
        self.failure = failure
        self.ended = True
        if self._runs:
            self._attempts.log.cancel(getattr(failure, "reason", None))
        self._trace.fail(failure)

    def close(self) -> bool:
        """Ends the stream on behalf of the caller. Returns whether there is a call to cancel."""
        if self.ended or self.complete:
            return False
        self.fail(self._error("The stream was closed before its answer was complete."))
        return True

    def _give_up(self, failure: DohertyError, error: BaseException | None) -> None:
        """Ends the stream after its last attempt.

        Args:
            failure: The status of the attempt.
            error: The exception that gRPC raised; None if the server ended the stream with OK.
        """
        if isinstance(failure, RpcError):
            if error is None:
                failure = self._error("The stream was cut off: it ended without a summary.")
            elif self._attempts.is_resuming and not isinstance(failure, UnavailableError | DeadlineExceededError):
                # The answer cannot be resumed, so the caller gets the received part.
                failure = self._error(f"The answer was cut off, and could not be resumed: {failure.message}")
        failure.__cause__ = error
        self.fail(failure)

    def run_out_of_patience(self) -> bool:
        """Ends the stream because of its timeout. Returns whether there is a call to cancel."""
        if self.ended or self.complete:
            return False
        what, reason, seconds = (
            ("next", "IDLE_TIMEOUT", self._planned.idle_timeout)
            if self.begun
            else ("first", "FIRST_TOKEN_TIMEOUT", self._planned.first_token_timeout)
        )
        before = self._attempts.last_failure if self._awaits_start else None
        failed = f"; the attempt before failed with: {before}" if before else ""
        self.fail(
            DeadlineExceededError(
                f"The {what} token did not come within {seconds:g} s; allow more with {reason.lower()}={failed}",
                reason=reason,
                request_id=self.request_id,
            )
        )
        return True

    def _error(self, message: str) -> StreamError:
        """Returns an error that contains the received part."""
        return StreamError(message, text=self.text, token_ids=self._received.token_ids, request_id=self.request_id)

    def generation(self) -> "Generation[Any]":
        """Returns the whole answer.

        Raises:
            DohertyError: The answer is not complete, or its text does not match the schema.
        """
        elapsed = self._elapsed if self._attempts.count == 1 else None
        generation = self._received.generation(elapsed, self.metadata)
        if generation is None:
            raise self.failure or self._error("The answer is not complete.")
        if self.resumed and not self._planned.request.sampling.HasField("seed"):
            generation = replace(generation, seed=None)
        return self._planned.parse(generation)
