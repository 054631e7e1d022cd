"""The synthetic engine: a clock, and at every tick of it a token for every running request."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from doherty_engine import (
    EngineError,
    EngineFailedError,
    EngineRequest,
    Health,
    HeldPart,
    Input,
    ModelInfo,
    SamplingDefaults,
    StepOutput,
    StepSink,
)
from doherty_engine.synthetic._logprobs import MAX_TOP_LOGPROBS
from doherty_engine.synthetic._options import Options
from doherty_engine.synthetic._plan import make_plan
from doherty_engine.synthetic._run import Run
from doherty_engine.synthetic._vocabulary import (
    LONGEST_TOKEN_BYTES,
    VOCABULARY_SIZE,
    check_size,
    read_held,
    read_input,
)

_VERSION = "1"
"""Changes when the answers do."""

_FEATURES = frozenset(
    {
        "prompt",
        "messages",
        "raw_text",
        "token_ids",
        "sampling.temperature",
        "sampling.top_p",
        "sampling.top_k",
        "sampling.min_p",
        "sampling.frequency_penalty",
        "sampling.presence_penalty",
        "sampling.repetition_penalty",
        "sampling.seed",
        "stopping.max_output_tokens",
        "stopping.min_output_tokens",
        "stopping.stop_texts",
        "stopping.stop_token_ids",
        "stopping.include_stop_text",
        "stopping.ignore_eos",
        "stopping.time_limit",
        "output.token_ids",
        "output.top_logprobs",
        "constraint.json_schema",
        "constraint.choices",
        "adapter",
        "continue_from.token_ids",
        "continue_from.text",
    }
)


@dataclass(frozen=True, slots=True)
class _Handle:
    key: str
    drop: Callable[[str], None]

    def abort(self) -> None:
        """Drops the request."""
        self.drop(self.key)


def _no_sink(_: Sequence[StepOutput]) -> None:
    raise EngineFailedError("a request was submitted to an engine that was never started")


class SyntheticEngine:
    """Answers by a clock, on the event loop: no thread, no task, one timer, and that only while requests run."""

    def __init__(self, options: Options) -> None:
        self._options = options
        pace = options.tokens_per_second
        self._interval = options.tokens_per_step / pace if pace else 0.0
        self._sink: StepSink = _no_sink
        self._runs: dict[str, Run] = {}
        self._urgent: list[StepOutput] = []
        self._timer: asyncio.Handle | None = None
        self._next_step = 0.0
        self._steps = 0
        self._fault = "it has not been started"

    async def start(self, sink: StepSink) -> None:
        """Takes its time, and is ready; there is nothing to warm up."""
        await asyncio.sleep(self._options.load_seconds)
        self._sink = sink
        self._steps = 0
        self._fault = ""

    def submit(self, request: EngineRequest) -> _Handle:
        """Begins a request: reads it here and now, and lets its prefill run."""
        try:
            self._check_running()
            if len(self._runs) == self._options.slots:
                raise EngineFailedError(f"got a request beyond its {self._options.slots} slots")
            plan = make_plan(request, self._options)
            self._runs[request.key] = Run(request, plan, time.monotonic(), self._options)
            self._wind_up()
        except EngineError as error:
            self._tell_soon(StepOutput(request.key, error=error))
        return _Handle(request.key, self._abort)

    async def count_tokens(self, content: Input | HeldPart) -> int:
        """Counts the tokens of an input, or of a held part, as the model would read it."""
        self._check_running()
        if isinstance(content, HeldPart):
            return len(read_held(content))
        check_size(content, self._options.context_tokens)
        return len(read_input(content))

    def info(self) -> ModelInfo:
        """Tells what the engine serves."""
        return ModelInfo(
            model="synthetic",
            revision="",
            engine="synthetic",
            engine_version=_VERSION,
            context_tokens=self._options.context_tokens,
            vocabulary_size=VOCABULARY_SIZE,
            slots=self._options.slots,
            features=_FEATURES,
            max_top_logprobs=MAX_TOP_LOGPROBS,
            adapters=("demo-a", "demo-b"),
            longest_token_bytes=LONGEST_TOKEN_BYTES,
            # Who says nothing about sampling gets an answer that can be foretold.
            default_sampling=SamplingDefaults(temperature=0.0),
        )

    def health(self) -> Health:
        """Tells how the engine is; one that hangs does not know that it does."""
        return Health(ok=not self._fault, detail=self._fault)

    async def stop(self) -> None:
        """Aborts what is running."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fault = self._fault or "it has been stopped"
        self._urgent += [run.abort() for run in self._runs.values()]
        self._runs.clear()
        self._tell_urgent()

    def _check_running(self) -> None:
        if self._fault:
            raise EngineFailedError(self._fault)

    @property
    def _is_stalled(self) -> bool:
        return 0 < self._options.stall_after_steps <= self._steps

    def _wind_up(self) -> None:
        """Lets the clock run if it does not."""
        if self._timer is None and not self._is_stalled:
            self._next_step = time.monotonic() + self._interval
            self._schedule()

    def _schedule(self) -> None:
        # Each step has its time from the one before, however late that one was: the clock does not drift.
        loop = asyncio.get_running_loop()
        wait = self._next_step - time.monotonic()
        self._timer = loop.call_later(wait, self._step) if wait > 0 else loop.call_soon(self._step)

    def _step(self) -> None:
        """Gives every running request its tokens."""
        self._timer = None
        if not self._runs:
            return
        self._steps += 1
        now = time.monotonic()
        outputs = [output for run in self._runs.values() if (output := run.step(now)) is not None]
        for output in outputs:
            if output.is_last:
                del self._runs[output.key]
        if 0 < self._options.die_after_steps <= self._steps:
            self._fault = f"told to die after {self._options.die_after_steps} steps"
            self._urgent += [run.fail(self._fault) for run in self._runs.values()]
            self._runs.clear()
        if self._runs and not self._is_stalled:
            self._next_step += self._interval
            self._schedule()
        self._tell(outputs)
        if self._fault:
            self._tell_urgent()

    def _abort(self, key: str) -> None:
        if not self._is_stalled and (run := self._runs.pop(key, None)) is not None:
            self._tell_soon(run.abort())

    def _tell_soon(self, output: StepOutput) -> None:
        """Tells something that belongs to no step; not from within `submit` or `abort`."""
        if not self._urgent:
            asyncio.get_running_loop().call_soon(self._tell_urgent)
        self._urgent.append(output)

    def _tell_urgent(self) -> None:
        outputs, self._urgent = self._urgent, []
        self._tell(outputs)

    def _tell(self, outputs: list[StepOutput]) -> None:
        if outputs:
            self._sink(outputs)
