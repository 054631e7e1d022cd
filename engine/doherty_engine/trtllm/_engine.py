"""The engine: TensorRT-LLM in this process's hands, its worker in a process of its own."""

import asyncio
from typing import Any

from doherty_engine._engine import Health, ModelInfo, RequestHandle, StepSink
from doherty_engine._errors import EngineFailedError
from doherty_engine._outputs import StepOutput
from doherty_engine._requests import Choices, Constraint, EngineRequest, HeldPart, Input, RawText, Sampling, Stopping
from doherty_engine._trial import RefusedHandle, Trial, drop
from doherty_engine.text import InputReader
from doherty_engine.trtllm._features import has_constraints
from doherty_engine.trtllm._library import load
from doherty_engine.trtllm._load import Loaded, load_model
from doherty_engine.trtllm._options import Options
from doherty_engine.trtllm._run import Run, Workshop

_WARM_UP_TOKENS = 4


class TrtLlmEngine:
    """Generates text with TensorRT-LLM on NVIDIA's GPUs; keeps the Protocol `Engine`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._sink: StepSink = drop
        self._outputs: list[StepOutput] = []
        self._running: dict[Run, asyncio.Task[None]] = {}
        self._loading: asyncio.Future[Loaded] | None = None
        self._loaded: Loaded | None = None
        self._info: ModelInfo | None = None
        self._shop: Workshop | None = None
        self._fault = "it has not been started"

    async def start(self, sink: StepSink) -> None:
        """Loads the model, building its engine if there is none, and generates a few tokens to warm up.

        Raises:
            EngineSetupError: it cannot start; the message says what to do.
        """
        try:
            self._loading = asyncio.ensure_future(asyncio.to_thread(load_model, self._options))
            self._loaded = loaded = await asyncio.shield(self._loading)
            self._info = loaded.info()
            self._shop = self._make_shop(loaded)
            self._fault = ""
            await self._warm_up(loaded)
        except BaseException:
            await self.stop()
            raise
        self._sink = sink

    def submit(self, request: EngineRequest) -> RequestHandle:
        """Begins a request; never blocks. All that goes wrong with it comes as StepOutput.error."""
        if self._shop is None:
            self._emit(StepOutput(request.key, error=EngineFailedError("the engine is not running")))
            return RefusedHandle()
        run = Run(request, self._shop)
        task = self._running[run] = asyncio.get_running_loop().create_task(run.work())
        task.add_done_callback(lambda _: self._running.pop(run, None))
        return run

    async def count_tokens(self, content: Input | HeldPart) -> int:
        """Counts the tokens of an input, or of a held part, as the model would read it.

        Raises:
            InvalidInputError: it cannot be read, for instance by the chat template.
            UnsupportedError: the tokenizer changes the held text.
            EngineFailedError: the engine is not running.
        """
        if self._shop is None:
            raise EngineFailedError("the engine is not running")
        return await self._shop.reader.count(content)

    def info(self) -> ModelInfo:
        """Tells what the engine serves; callable once `start` has returned."""
        if self._info is None:
            raise EngineFailedError("the engine has not been started")
        return self._info

    def health(self) -> Health:
        """Tells how the engine is, without waiting for anything."""
        if not self._fault and self._loaded is not None and not _is_well(self._loaded.llm):
            self._fault = "TensorRT-LLM says that its worker is not well"
        return Health(ok=not self._fault, detail=self._fault)

    async def stop(self) -> None:
        """Aborts what is running, gives every resource back, and returns when that is done. May be called twice."""
        self._fault = self._fault or "it has been stopped"
        self._shop = None
        if self._loading is not None:  # a load cannot be broken off, and what it loaded must be given back
            await asyncio.gather(self._loading, return_exceptions=True)
            if not self._loading.cancelled() and self._loading.exception() is None:
                self._loaded = self._loading.result()
        running = list(self._running.items())
        for run, task in running:
            run.drop()
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)
        self._flush()
        loaded, self._loaded, self._loading = self._loaded, None, None
        if loaded is not None:
            await asyncio.to_thread(loaded.close)

    def _make_shop(self, loaded: Loaded) -> Workshop:
        plan = loaded.plan
        return Workshop(
            llm=loaded.llm,
            reader=InputReader(loaded.tokenizer, plan.context),
            vocabulary=loaded.tokenizer,
            sampling=loaded.sampling,
            most_prompt_tokens=plan.most_prompt_tokens,
            # Of lookahead's drafts one n-gram can be accepted a step, without its first token, which is the model's.
            drafts_per_step=plan.knobs.lookahead[1] - 1 if plan.knobs.lookahead else 0,
            tells_cached_tokens=not plan.is_built,
            adapters=loaded.adapters,
            request_error=load("tensorrt_llm.executor").RequestError,
            grammars=loaded.grammars,
            emit=self._emit,
            on_fault=self._note_fault,
        )

    async def _warm_up(self, loaded: Loaded) -> None:
        await self._try(Stopping(max_output_tokens=_WARM_UP_TOKENS))
        if has_constraints(loaded.plan.knobs):
            # The first constraint makes xgrammar read the whole vocabulary, which takes seconds.
            await self._try(Stopping(), Choices(("Hello",)))

    async def _try(self, stopping: Stopping, constraint: Constraint | None = None) -> None:
        trial = Trial()
        self._sink = trial.sink
        greedy = Sampling(temperature=0.0)
        self.submit(EngineRequest("warm-up", RawText("Hello"), greedy, stopping, constraint=constraint))
        await trial.succeeds()

    def _note_fault(self, why: str) -> None:
        self._fault = self._fault or why

    def _emit(self, output: StepOutput) -> None:
        """Gathers what one step gave for all requests, whose tasks are woken together, into one call of the sink."""
        if not self._outputs:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outputs.append(output)

    def _flush(self) -> None:
        outputs, self._outputs = self._outputs, []
        if outputs:
            self._sink(outputs)


def _is_well(llm: Any) -> bool:
    """What TensorRT-LLM itself says, where it can tell: its method is private, and not there in every version."""
    check = getattr(llm, "_check_health", None)
    try:
        return True if check is None else bool(check())
    except Exception:  # noqa: BLE001  it is private: whatever it raises, the worker is not well
        return False
