"""Answers: they take the engine's outputs and deliver them to the caller."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Generator

from doherty_engine import (
    EngineFailedError,
    EngineRequest,
    FinishReason,
    ModelInfo,
    RequestHandle,
    StepOutput,
)
from doherty_service import translation
from doherty_service._errors import StalledReaderError
from doherty_service.admission import Admission, Ticket
from doherty_service.generation._outputs import mark, merge
from doherty_service.generation._writes import MessageWriter
from doherty_service.telemetry import RequestRecord

_MAX_UNREAD = 32_768
"""Maximum number of outputs of a streamed answer that wait until the caller reads."""

_MAX_WEIGHT = 16_384
"""Maximum number of tokens and alternatives in a message: about 400 kB with 20 log probabilities per token."""

_REQUEST_ID = "doherty-request-id"
"""The initial metadata of an answer whose caller is told of its admission."""


class Answer(ABC):
    """One request from its admission to the engine's last output.

    The engine's outputs arrive through `put`. A subclass decides in `deliver` when and how they are sent, and in `end`
    how the RPC learns of the end. `Generations` admits the request, and aborts it in the engine if it has not ended.

    fail        ends the answer with an error, after the outputs that came before
    break_off   ends the answer with an error at once
    end         is called by both, and after all outputs are delivered
    leave       is called when nobody waits for the answer any more
    """

    request: EngineRequest
    ticket: Ticket
    model: ModelInfo

    def __init__(self, record: RequestRecord) -> None:
        self.record = record
        self.is_submitted = False
        """Whether the request was submitted to the engine."""
        self.awaits: Admission | None = None
        """The admission in whose queue the request waits; None if it does not wait."""
        self.handle: RequestHandle | None = None
        self.aborted_at: float | None = None
        """When the request was aborted (`time.monotonic()`)."""
        self.taken: float | None = None
        """What to give back to the caller's limits at the end; None if the request is not counted."""
        self.is_over = False
        """Whether no more outputs are delivered."""
        self._unread: list[StepOutput] = []
        self._failure: Exception | None = None
        self._has_begun = False
        """Whether a message of the answer was handed to the transport."""

    @abstractmethod
    def deliver(self) -> None:
        """Called when there is something to deliver: outputs, or a failure after them."""

    @abstractmethod
    def end(self, error: Exception | None) -> None:
        """Called once: when the whole answer is delivered, or when it ends with an error."""

    @property
    def tells_admission(self) -> bool:
        """Whether the caller is told that the request was admitted, if the answer does not begin soon."""
        return False

    def tell_admission(self) -> None:
        """Tells the caller that the request was admitted. Called only if `tells_admission`."""
        raise NotImplementedError

    @property
    def is_silent(self) -> bool:
        """Whether nothing of the answer was sent yet."""
        return not self._has_begun and not self.is_over

    def put(self, output: StepOutput) -> None:
        """Takes the output of one engine step for this request."""
        finish = output.finish
        if self.is_over or self._failure is not None:
            return
        if output.error is not None:
            self.fail(output.error)
        elif finish is not None and finish.reason is FinishReason.ABORTED:
            self.fail(EngineFailedError("the engine aborted a request whose caller is still waiting"))
        elif len(self._unread) >= _MAX_UNREAD and not self.ticket.whole:
            self.break_off(StalledReaderError())
        else:
            self._unread.append(output)
            self.deliver()

    def fail(self, error: Exception) -> None:
        """Ends the answer with an error, after the outputs that were put before."""
        if self._failure is None and not self.is_over:
            self._failure = error
            self.deliver()

    def break_off(self, error: Exception) -> None:
        """Ends the answer with an error at once."""
        if not self.is_over:
            self._finish(error)

    def leave(self) -> None:
        """Delivers nothing more, and aborts the request in the engine unless it has ended."""
        self.is_over = True
        self._unread.clear()
        if self.awaits is not None:
            self.awaits.leave(self.ticket)
            self.awaits = None
        if self.handle is not None:
            self.aborted_at = time.monotonic()
            self.handle.abort()

    def _finish(self, error: Exception | None) -> None:
        self.is_over = True
        self.end(error)

    def _take(self) -> StepOutput:
        """Returns the waiting outputs, merged into one; only as many as fit into a message."""
        unread = self._unread
        if len(unread) == 1:
            self._unread = []
            return unread[0]
        weight, count = 0, 0
        per_token = 1 + (self.request.top_logprobs or 0)
        for output in unread:
            weight += output.token_count * per_token
            if count and weight > _MAX_WEIGHT:
                break
            count += 1
        self._unread = unread[count:]
        return merge(unread[:count])

    def _message(self, output: StepOutput) -> bytes:
        """Returns the message for an output that is handed to the transport now; empty if there is nothing to send."""
        mark(self.record, output)
        message = translation.stream_message(
            output, self.record, self.model, self.request, is_first=not self._has_begun
        )
        if message:
            self._has_begun = True
        return message


class AwaitedAnswer(Answer):
    """An answer whose end the task of its RPC awaits."""

    def __init__(self, record: RequestRecord) -> None:
        super().__init__(record)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolved when the whole answer is delivered, or with its error."""

    def end(self, error: Exception | None) -> None:
        """Resolves `done`."""
        settle(self.done, error)


class WholeAnswer(AwaitedAnswer):
    """An answer that is sent as one message. Tokens are recorded when the engine produces them."""

    def put(self, output: StepOutput) -> None:
        """Takes an output. One in the middle of the answer is only stored."""
        if output.finish is None and output.error is None and output.started is None and not self.is_over:
            self._unread.append(output)
            if output.token_count:
                self.record.mark_tokens(output.token_count)
        else:
            super().put(output)

    def deliver(self) -> None:
        """Records the newest output; the last one or a failure ends the answer."""
        if self._failure is not None:
            self._finish(self._failure)
            return
        newest = self._unread[-1]
        mark(self.record, newest)
        if newest.finish is not None:
            self._finish(None)

    def output(self) -> StepOutput:
        """The whole answer as one output."""
        return merge(self._unread)

    def reply(self) -> Generator[None, None, bytes]:
        """Makes the GenerateResponse; yields after each slice of work."""
        return translation.whole_message(self.output(), self.record, self.model, self.request)


class StreamedAnswer(AwaitedAnswer, MessageWriter):
    """An answer that is sent while it is generated.

    If the previous message has been sent, an output is written within the engine's step, without a task. Outputs that
    arrive while a message is being sent are merged into the next one.
    """

    def __init__(self, record: RequestRecord) -> None:
        AwaitedAnswer.__init__(self, record)
        MessageWriter.__init__(self, record.call)
        self._is_last_written = False

    def put(self, output: StepOutput) -> None:
        """Takes an output. One in the middle of the answer is written here directly, if no message is being sent."""
        if (
            self._has_begun
            and self.write_began is None
            and output.finish is None
            and output.error is None
            and output.token_count
            and not output.logprobs
            and not self.is_over
        ):
            self.record.mark_tokens(output.token_count)
            self.write(translation.delta_message(output))
        else:
            super().put(output)

    def deliver(self) -> None:
        """Writes what there is, unless a message is still being sent."""
        if self.write_began is not None:
            self.calls_written = True
            return
        while self._unread:
            output = self._take()
            message = self._message(output)
            if message:
                self._is_last_written = output.finish is not None
                self.calls_written = self._is_last_written or bool(self._unread) or self._failure is not None
                self.write(message)
                return
        if self._failure is not None:
            self._finish(self._failure)

    @property
    def tells_admission(self) -> bool:
        """Always."""
        return True

    def tell_admission(self) -> None:
        """Sends the initial metadata, which otherwise leave with the first message."""
        self.send_metadata(((_REQUEST_ID, self.record.request_id),))

    def written(self, error: Exception | None) -> None:
        """Continues after a message was sent, or ends after an error."""
        if self.is_over:
            return
        if error is not None or self._is_last_written:
            self._finish(error)
        else:
            try:
                self.deliver()
            except Exception as failure:  # noqa: BLE001 - raised in the RPC's task, which maps and logs it
                self.break_off(failure)

    def stall(self) -> None:
        """Ends the answer, because its caller does not read it."""
        self.break_off(StalledReaderError())


def settle(future: "asyncio.Future[None]", error: Exception | None) -> None:
    """Resolves a future, unless it is already done or cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
