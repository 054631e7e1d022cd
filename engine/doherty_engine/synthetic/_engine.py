"""The synthetic engine: at each tick of a clock, every running request gets its next tokens."""

import asyncio
import time

from doherty_engine import EngineFailedError, EngineRequest, ModelInfo, RequestHandle, SamplingDefaults
from doherty_engine.synthetic._logprobs import MAX_TOP_LOGPROBS
from doherty_engine.synthetic._options import Options
from doherty_engine.synthetic._request import SyntheticContext, SyntheticRequest
from doherty_engine.synthetic._tokenizer import LONGEST_TOKEN_BYTES, VOCABULARY_SIZE, SyntheticTokenizer
from doherty_engine.tokens import CONSTRAINTS, PromptReader, TokenEngine, common_features

_VERSION = "1"
"""Change it whenever the answers change."""
_SAMPLING = frozenset(
    {
        "output.top_logprobs",
        "sampling.frequency_penalty",
        "sampling.min_p",
        "sampling.presence_penalty",
        "sampling.repetition_penalty",
        "sampling.seed",
        "sampling.top_k",
        "sampling.top_p",
        "stopping.min_output_tokens",
    }
)


class SyntheticEngine(TokenEngine[SyntheticContext, SyntheticRequest]):
    """Generates on a clock: one timer, which is set only while requests run."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        pace = options.tokens_per_second
        self._interval = options.tokens_per_step / pace if pace else 0.0
        self._timer: asyncio.Handle | None = None
        self._next_step = 0.0
        self._steps = 0

    def submit(self, request: EngineRequest) -> RequestHandle:
        """Begins a request. One beyond the slots fails, because the server must not submit it."""
        if len(self._requests) == self._options.slots:
            return self._refuse(request, f"got a request beyond its {self._options.slots} slots")
        return super().submit(request)

    async def _load(self) -> SyntheticContext:
        await asyncio.sleep(self._options.load_seconds)
        self._steps = 0
        tokenizer = SyntheticTokenizer()
        return SyntheticContext(
            reader=PromptReader(tokenizer, self._options.context_tokens),
            tokenizer=tokenizer,
            compile_constraint=None,
            options=self._options,
            start_clock=self._start_clock,
            is_stalled=self._is_stalled,
        )

    def _describe(self, context: SyntheticContext) -> ModelInfo:
        features = common_features(has_chat_template=True, has_constraints=True, has_adapters=True) | _SAMPLING
        return ModelInfo(
            model="synthetic",
            revision="",
            engine="synthetic",
            engine_version=_VERSION,
            context_tokens=context.options.context_tokens,
            vocabulary_size=VOCABULARY_SIZE,
            slots=context.options.slots,
            features=features - CONSTRAINTS | {"constraint.choices", "constraint.json_schema"},
            max_top_logprobs=MAX_TOP_LOGPROBS,
            adapters=("demo-a", "demo-b"),
            longest_token_bytes=LONGEST_TOKEN_BYTES,
            # Without sampling settings, the answer is predictable.
            default_sampling=SamplingDefaults(temperature=0.0),
        )

    def _make_request(self, request: EngineRequest, context: SyntheticContext) -> SyntheticRequest:
        return SyntheticRequest(request, context, self)

    async def _warm_up(self, info: ModelInfo) -> None:
        """Does nothing, because a warm-up would count as steps of the clock."""

    async def _unload(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _is_stalled(self) -> bool:
        return 0 < self._options.stall_after_steps <= self._steps

    def _start_clock(self) -> None:
        if self._timer is None and not self._is_stalled():
            self._next_step = time.monotonic() + self._interval
            self._schedule()

    def _schedule(self) -> None:
        # The time of each step follows from that of the previous one, even if it ran late: so the clock does not drift.
        loop = asyncio.get_running_loop()
        wait = self._next_step - time.monotonic()
        self._timer = loop.call_later(wait, self._step) if wait > 0 else loop.call_soon(self._step)

    def _step(self) -> None:
        """Gives every running request its next tokens."""
        self._timer = None
        if not self._requests:
            return
        self._steps += 1
        now = time.monotonic()
        for request in list(self._requests.values()):
            request.step(now)
        if 0 < self._options.die_after_steps <= self._steps:
            self._fault = f"told to die after {self._options.die_after_steps} steps"
            for request in list(self._requests.values()):
                request.fail(EngineFailedError(self._fault))
        if self._requests and not self._is_stalled():
            self._next_step += self._interval
            self._schedule()
        self._flush()
