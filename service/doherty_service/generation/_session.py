"""One start of an engine: what it works on, and the slots that it has."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from doherty_engine import Engine, Finish, FinishReason, StepOutput
from doherty_service._errors import UnavailableError
from doherty_service.admission import Admission
from doherty_service.generation._answer import Answer
from doherty_service.telemetry import LatencyRecorder


class EngineSession:
    """Hands requests to one engine, and what each of its steps produced to the answers that wait for it.

    `sink` is what the engine calls. A new engine gets a new session, so nothing that a lost one may still say matters.
    """

    admission: Admission
    """Set by `Generations.begin`, before the first request."""

    def __init__(self, engine: Engine, recorder: LatencyRecorder) -> None:
        self.engine = engine
        self.last_step = time.monotonic()
        """When the engine last gave a sign of life, or got work after it had none."""
        self.request_failed = asyncio.Event()
        """Set when a request has failed, which may mean that the engine has."""
        self.loss: UnavailableError | None = None
        """What its requests were told when it was lost."""
        self._recorder = recorder
        self._answers: dict[str, Answer] = {}

    @property
    def is_busy(self) -> bool:
        """Whether the engine has something to do."""
        return bool(self._answers)

    @property
    def last_sign(self) -> float:
        """When the engine last gave a sign of life, by `time.monotonic()`."""
        return max(self.last_step, self.engine.health().last_progress or 0.0)

    def running_by_key(self) -> Counter[str]:
        """How many requests of each key have a slot, by its name. Any thread may ask."""
        return Counter(answer.record.caller.name for answer in list(self._answers.values()))

    def submit(self, answer: Answer) -> None:
        """Begins a request that has a slot.

        Raises:
            Exception: the engine failed before it began; the slot is free.
        """
        if not self._answers:
            self.last_step = time.monotonic()
        key = answer.request.key
        self._answers[key] = answer
        answer.submitted()
        try:
            answer.handle = self.engine.submit(answer.request)
        except BaseException:
            # The engine will say nothing about it.
            self._release(answer, StepOutput(key, finish=Finish(FinishReason.ABORTED)))
            raise

    def sink(self, outputs: Sequence[StepOutput]) -> None:
        """Hands the outputs of one step to the answers they belong to."""
        self.last_step = time.monotonic()
        answers = self._answers
        for output in outputs:
            answer = answers.get(output.key)
            if answer is None:
                continue  # the engine's last word on it has been heard
            try:
                if output.finish is not None or output.error is not None:
                    self._release(answer, output)
                answer.put(output)
            except Exception as error:  # noqa: BLE001 - a fault in one answer must not stop the others; its RPC logs it
                answer.break_off(error)

    def _release(self, answer: Answer, last: StepOutput) -> None:
        """Frees the slot of a request on which the engine has said its last word."""
        record = answer.record
        answer.handle = None
        del self._answers[answer.request.key]
        if last.error is not None:
            self.request_failed.set()
        # A canary says nothing about how long people's answers take, nor does a request that failed.
        tells = record.is_answer and last.error is None
        self.admission.release(
            answer.ticket,
            record.output_tokens + last.token_count if tells else None,
            ended=last.finish is not None and last.finish.reason is FinishReason.STOP,
        )
        if answer.aborted_at is not None:
            self._recorder.slot_freed(record.abort_cause, time.monotonic() - answer.aborted_at)

    def lose(self, error: UnavailableError) -> None:
        """Ends the wait of all its requests; the engine is not coming back."""
        self.loss = error
        self.admission.fail_waiting(error)
        for answer in tuple(self._answers.values()):
            try:
                answer.fail(error.copy())
            except Exception as fault:  # noqa: BLE001 - as in `sink`
                answer.break_off(fault)
