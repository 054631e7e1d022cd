"""One start of an engine: its running requests and its slots."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from doherty_engine import Engine, Finish, FinishReason, StepOutput
from doherty_service._errors import UnavailableError
from doherty_service.admission import Admission
from doherty_service.generation._answer import Answer
from doherty_service.generation._silences import Silences
from doherty_service.telemetry import LatencyRecorder


class EngineSession:
    """Passes requests to one engine, and the outputs of the engine's steps to the answers.

    The engine calls `sink`. A new engine gets a new session, so late outputs of a lost engine go nowhere.
    """

    admission: Admission
    """Set by `Generations.begin`, before the first request."""

    def __init__(self, engine: Engine, recorder: LatencyRecorder) -> None:
        self.engine = engine
        self.last_step = time.monotonic()
        """When the engine last finished a step, or got work after it had none."""
        self.request_failed = asyncio.Event()
        """Set when a request has failed, which may mean that the engine has failed."""
        self.loss: UnavailableError | None = None
        """The error that ended its requests when the engine was lost."""
        self._recorder = recorder
        self._answers: dict[str, Answer] = {}
        self._silences = Silences()

    @property
    def is_busy(self) -> bool:
        """Whether the engine has work."""
        return bool(self._answers)

    @property
    def last_sign(self) -> float:
        """When the engine last made progress (`time.monotonic()`)."""
        return max(self.last_step, self.engine.health().last_progress or 0.0)

    def running_by_key(self) -> Counter[str]:
        """The number of running requests by key name. Thread-safe."""
        return Counter(answer.record.caller.name for answer in list(self._answers.values()))

    def submit(self, answer: Answer) -> None:
        """Submits a request that has a slot to the engine.

        Raises:
            Exception: The engine could not begin it; the slot is free again.
        """
        if not self._answers:
            self.last_step = time.monotonic()
        key = answer.request.key
        self._answers[key] = answer
        answer.is_submitted = True
        if answer.tells_admission:
            self._silences.add(answer)
        try:
            answer.handle = self.engine.submit(answer.request)
        except BaseException:
            # The engine will produce no output for this request.
            self._release(answer, StepOutput(key, finish=Finish(FinishReason.ABORTED)))
            raise

    def sink(self, outputs: Sequence[StepOutput]) -> None:
        """Passes the outputs of one step to their answers."""
        self.last_step = time.monotonic()
        answers = self._answers
        for output in outputs:
            answer = answers.get(output.key)
            if answer is None:
                continue  # its last output has already arrived
            try:
                if output.finish is not None or output.error is not None:
                    self._release(answer, output)
                answer.put(output)
            except Exception as error:  # noqa: BLE001 - an error in one answer must not stop the others; its RPC logs it
                answer.break_off(error)

    def _release(self, answer: Answer, last: StepOutput) -> None:
        """Frees the slot of a request whose last output has arrived."""
        record = answer.record
        answer.handle = None
        del self._answers[answer.request.key]
        if last.error is not None:
            self.request_failed.set()
        # The durations of canaries and of failed requests say nothing about those of answers.
        is_typical = record.is_answer and last.error is None
        self.admission.release(
            answer.ticket,
            record.output_tokens + last.token_count if is_typical else None,
            ended=last.finish is not None and last.finish.reason is FinishReason.STOP,
        )
        if answer.aborted_at is not None:
            self._recorder.slot_freed(record.abort_cause, time.monotonic() - answer.aborted_at)

    def lose(self, error: UnavailableError) -> None:
        """Ends all its requests, because the engine was lost."""
        self.loss = error
        self.admission.fail_waiting(error)
        for answer in tuple(self._answers.values()):
            try:
                answer.fail(error.copy())
            except Exception as failure:  # noqa: BLE001 - as in `sink`
                answer.break_off(failure)
