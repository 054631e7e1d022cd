"""Between the engine and the transport: what each step produced, sorted by request."""

import asyncio
import time
from collections.abc import Callable, Sequence

from doherty_engine import EngineFailedError, FinishReason, StepOutput, TokenLogprob
from doherty_service._errors import StalledReaderError

_MOST_UNREAD = 32_768
"""Outputs of one answer that nobody has fetched: a caller that reads, however slowly, gets them merged into one."""


class Answer:
    """The outputs of one request that nobody has taken yet."""

    def __init__(self, key: str, on_last: Callable[[StepOutput], None]) -> None:
        """`on_last` is called once with the last output, when the engine has no more to do for the request."""
        self.key = key
        self._on_last = on_last
        self._outputs: list[StepOutput] = []
        self._wake: Callable[[], None] = _nobody
        self._failure: Exception | None = None
        self._reading = True

    def listen(self, wake: Callable[[], None]) -> None:
        """Has `wake` called whenever there is something to take, on the event loop, and at once if there is already."""
        self._wake = wake
        if self._outputs or self._failure is not None:
            wake()

    @property
    def newest(self) -> StepOutput | None:
        """The last of the outputs that are there; None where there are none, or where the answer has failed."""
        return self._outputs[-1] if self._outputs and self._failure is None else None

    def take(self) -> StepOutput | None:
        """Returns all outputs that are there merged into one; None where there are none.

        Raises:
            Exception: the engine's error, or what `fail` was called with, once all text before it has been taken.
        """
        outputs = self._outputs
        if not outputs:
            if self._failure is not None:
                raise self._failure
            return None
        self._outputs = []
        if self._failure is not None:
            self._wake()  # for it is there to be taken, too
        return outputs[0] if len(outputs) == 1 else _merge(outputs)

    def put(self, output: StepOutput) -> None:
        """Takes what a step produced for the request."""
        if output.finish is not None or output.error is not None:  # as `is_last`, without the call
            self._on_last(output)
        if not self._reading or self._failure is not None:
            return
        if output.error is not None:
            self._failure = output.error
        elif output.finish is not None and output.finish.reason is FinishReason.ABORTED:
            self._failure = EngineFailedError("the engine dropped a request that is still read")
        elif len(self._outputs) < _MOST_UNREAD:
            self._outputs.append(output)
        else:
            self._failure = StalledReaderError()
        self._wake()

    def fail(self, error: Exception) -> None:
        """Ends the answer for its reader; the engine's last output is still awaited."""
        self._failure = error
        self._wake()

    def leave(self) -> None:
        """Nobody reads any more."""
        self._reading = False
        self._wake = _nobody
        self._outputs.clear()


def _nobody() -> None:
    """Takes nothing."""


class Answers:
    """All answers under way; its `sink` is where the engine puts the outputs of a step."""

    def __init__(self) -> None:
        """None is under way."""
        self.last_step = time.monotonic()
        """When the engine last gave a sign of life, or got work after it had none."""
        self.failed = asyncio.Event()
        """Set when a request has failed, which may mean that the engine has."""
        self._by_key: dict[str, Answer] = {}

    @property
    def is_busy(self) -> bool:
        """Whether the engine has something to do."""
        return bool(self._by_key)

    def begin(self, key: str, on_last: Callable[[StepOutput], None]) -> Answer:
        """Expects outputs for the request `key`; `on_last` is called with the last one, when its slot is free."""

        def ended(last: StepOutput) -> None:
            del self._by_key[key]
            on_last(last)

        if not self._by_key:
            self.last_step = time.monotonic()
        answer = self._by_key[key] = Answer(key, ended)
        return answer

    def sink(self, outputs: Sequence[StepOutput]) -> None:
        """Hands the outputs of one step to the requests they belong to."""
        self.last_step = time.monotonic()
        for output in outputs:
            if output.error is not None:
                self.failed.set()
            self._by_key[output.key].put(output)

    def fail_all(self, error: Exception) -> None:
        """Ends every answer under way for its reader."""
        for answer in self._by_key.values():
            answer.fail(error)


def _merge(outputs: Sequence[StepOutput]) -> StepOutput:
    """One output out of several that follow each other; what is unknown for one of them is unknown for all."""
    last = outputs[-1]
    ids: list[int] = []
    logprobs: list[TokenLogprob] = []
    with_tokens = [output for output in outputs if output.token_count]
    for output in with_tokens:
        ids += output.token_ids or ()
        logprobs += output.logprobs or ()
    return last._replace(
        text="".join(output.text for output in outputs),
        token_count=sum(output.token_count for output in with_tokens),
        token_ids=None if any(output.token_ids is None for output in with_tokens) else tuple(ids),
        logprobs=None if any(output.logprobs is None for output in with_tokens) else tuple(logprobs),
        started=next((output.started for output in outputs if output.started is not None), None),
    )
