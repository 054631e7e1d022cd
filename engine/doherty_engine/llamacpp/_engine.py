"""The engine: loads the model, runs each request in a thread, and delivers the outputs on the event loop."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from doherty_engine._engine import Health, ModelInfo, RequestHandle, SamplingDefaults, StepSink
from doherty_engine._errors import EngineFailedError, EngineSetupError
from doherty_engine._outputs import StepOutput
from doherty_engine._requests import AnswerPrefix, EngineRequest, Input
from doherty_engine._semaphore import FairSemaphore
from doherty_engine._warm_up import RefusedHandle, WarmUp, discard
from doherty_engine.constraints import TRANSLATIONS, ConstraintCompiler
from doherty_engine.llamacpp._batcher import OutputBatcher
from doherty_engine.llamacpp._gguf import Gguf
from doherty_engine.llamacpp._model_file import ModelFile, find_model
from doherty_engine.llamacpp._options import Options, default_threads
from doherty_engine.llamacpp._pace import PromptPace
from doherty_engine.llamacpp._parts import read_model
from doherty_engine.llamacpp._reader import InputReader
from doherty_engine.llamacpp._request import LlamaCppContext, LlamaCppRequest
from doherty_engine.llamacpp._server import LlamaServer, LlamaServerGoneError
from doherty_engine.llamacpp._slots import Slots
from doherty_engine.llamacpp._vocabulary import Vocabulary
from doherty_engine.text import UNUSABLE_TEMPLATE

_DEFAULT_CONTEXT_TOKENS = 8192
_MAX_TOP_LOGPROBS = 20
_log = logging.getLogger("doherty.engine")
_TEMPLATED = frozenset({"messages", "prompt"})
_FEATURES = frozenset(
    {
        "constraint.choices",
        "constraint.grammar",
        "constraint.json_schema",
        "constraint.regex",
        "continue_from.text",
        "continue_from.token_ids",
        "output.token_ids",
        "output.top_logprobs",
        "raw_text",
        "sampling.frequency_penalty",
        "sampling.min_p",
        "sampling.presence_penalty",
        "sampling.repetition_penalty",
        "sampling.seed",
        "sampling.temperature",
        "sampling.top_k",
        "sampling.top_p",
        "stopping.ignore_eos",
        "stopping.include_stop_text",
        "stopping.max_output_tokens",
        "stopping.stop_texts",
        "stopping.stop_token_ids",
        "stopping.time_limit",
        "token_ids",
    }
)


def create(options: Options) -> "LlamaCppEngine":
    """Creates the engine, without starting it."""
    return LlamaCppEngine(options)


class LlamaCppEngine:
    """Generates text with llama.cpp on the CPU; implements the protocol `Engine`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # One thread per slot. Counting tokens has a thread of its own, so that it never delays a request.
        self._threads = ThreadPoolExecutor(options.slots, thread_name_prefix="llamacpp")
        self._counters = ThreadPoolExecutor(1, thread_name_prefix="llamacpp-count")
        self._running: dict[str, tuple[LlamaCppRequest, Future[None]]] = {}
        self._sink: StepSink = discard
        self._loading: Future[None] | None = None
        self._context: LlamaCppContext | None = None
        self._info: ModelInfo | None = None
        self._failure = ""

    async def start(self, sink: StepSink) -> None:
        """Loads the model and generates a few tokens to warm up.

        Raises:
            EngineSetupError: The engine cannot start; the message says what to do.
        """
        self._batcher = OutputBatcher(asyncio.get_running_loop(), self._deliver)
        try:
            self._loading = self._threads.submit(self._load)
            await asyncio.wrap_future(self._loading)
            warm_up = WarmUp(self.submit, self.info())
            self._sink = warm_up.sink
            await warm_up.run()
        except BaseException:
            await self.stop()
            raise
        self._sink = sink

    def submit(self, request: EngineRequest) -> RequestHandle:
        """Starts a request without blocking. Every error of the request is delivered as StepOutput.error."""
        if self._context is None:
            refusal = StepOutput(request.key, error=EngineFailedError("the engine is not running"))
            asyncio.get_running_loop().call_soon(self._sink, [refusal])
            return RefusedHandle()
        running = LlamaCppRequest(request, self._context)
        self._running[request.key] = running, self._threads.submit(running.run)
        return running

    async def count_tokens(self, content: Input | AnswerPrefix) -> int:
        """Counts the tokens of an input or of a prefix, as the model would read it.

        Raises:
            InvalidInputError: The input is invalid; for example, the chat template refuses it.
            UnsupportedError: The tokenizer changes the text of the prefix.
            EngineFailedError: The engine is not running.
        """
        counting: Future[int] = self._counters.submit(self._loaded().reader.count, content)
        try:
            return await asyncio.wrap_future(counting)
        except asyncio.CancelledError:
            if self._context is not None:
                raise  # the caller was cancelled
            raise EngineFailedError("the engine was stopped") from None

    def info(self) -> ModelInfo:
        """Describes the model; available once `start` has returned."""
        if self._info is None:
            raise EngineFailedError("the engine has not been started")
        return self._info

    def health(self) -> Health:
        """Reports the engine's health, without blocking."""
        if self._context is None:
            return Health(ok=False, detail="the engine is not running")
        return Health(
            ok=not self._failure,
            detail=self._failure,
            kv_cache_use=self._context.kv_cache.use,
            # The copy is needed because the event loop may change the dictionary while another thread calls this.
            last_progress=max((request.last_progress for request, _ in list(self._running.values())), default=None),
        )

    async def stop(self) -> None:
        """Aborts all requests, frees all resources, and returns when that is done. It may be called twice."""
        if self._loading is not None:  # a load cannot be interrupted, and the model that it loads must be freed
            await asyncio.gather(asyncio.wrap_future(self._loading), return_exceptions=True)
        context, self._context = self._context, None
        for request, _ in self._running.values():
            request.abort()
        running = [asyncio.wrap_future(future) for _, future in self._running.values()]
        await asyncio.gather(*running, return_exceptions=True)
        # Stop counting first. llama.cpp's destructor holds the GIL while it waits for its HTTP listener to send the
        # last responses. Without the GIL, the counting thread could not receive its response, and both would wait.
        await asyncio.to_thread(self._counters.shutdown, cancel_futures=True)
        if context is not None:
            self._batcher.flush()
            await asyncio.get_running_loop().run_in_executor(self._threads, context.server.close)
        self._threads.shutdown()

    def _load(self) -> None:
        options = self._options
        compiler = ConstraintCompiler(extra="cpu")
        file = find_model(options.model, options.revision)
        gguf = read_model(file.path)
        vocabulary = Vocabulary(gguf)
        context_tokens = _context_tokens(options, gguf)
        threads = options.threads or default_threads()
        server = LlamaServer(file.path, gguf=gguf, slots=options.slots, context_tokens=context_tokens, threads=threads)
        self._context = LlamaCppContext(
            server=server,
            vocabulary=vocabulary,
            reader=InputReader(server, vocabulary, context_tokens),
            compiler=compiler,
            compiler_turn=FairSemaphore(TRANSLATIONS, per_key=1),
            kv_cache=FairSemaphore(context_tokens),
            prompt_turn=FairSemaphore(1),
            pace=PromptPace(),
            slots=Slots(options.slots, context_tokens),
            context_tokens=context_tokens,
            prompt_cache=options.prompt_cache,
            emit=self._batcher.put,
        )
        if gguf.has_chat_template and not server.has_chat_template:
            _log.warning(UNUSABLE_TEMPLATE)
        features = _FEATURES | _TEMPLATED if server.has_chat_template else _FEATURES
        self._info = _describe(file, gguf, self._context, options.slots, features)

    def _loaded(self) -> LlamaCppContext:
        if self._context is None:
            raise EngineFailedError("the engine is not running")
        return self._context

    def _deliver(self, outputs: Sequence[StepOutput]) -> None:
        wanted: list[StepOutput] = []
        for output in outputs:
            request, _ = self._running[output.key]
            # Drop what the thread sent before it noticed the abort.
            if output.is_last or not request.aborted:
                wanted.append(output)
            if output.is_last:
                del self._running[output.key]
            if isinstance(output.error, LlamaServerGoneError):
                self._failure = str(output.error)
        if wanted:
            self._sink(wanted)


def _context_tokens(options: Options, gguf: Gguf) -> int:
    trained = gguf.context_tokens or _DEFAULT_CONTEXT_TOKENS
    context_tokens = options.context_tokens or min(_DEFAULT_CONTEXT_TOKENS, trained)
    if context_tokens > trained:
        raise EngineSetupError(f"The model has a context of {trained} tokens; set context_tokens to at most that.")
    return context_tokens


def _describe(file: ModelFile, gguf: Gguf, context: LlamaCppContext, slots: int, features: frozenset[str]) -> ModelInfo:
    return ModelInfo(
        model=file.model,
        revision=file.revision,
        engine="llamacpp",
        engine_version=context.server.version,
        context_tokens=context.context_tokens,
        vocabulary_size=len(context.vocabulary),
        slots=slots,
        features=features,
        max_top_logprobs=_MAX_TOP_LOGPROBS,
        longest_token_bytes=max(map(len, context.vocabulary.pieces)),
        default_sampling=_default_sampling(file, gguf),
    )


def _default_sampling(file: ModelFile, gguf: Gguf) -> SamplingDefaults:
    """The recommendations of the GGUF file; if it has none, those from outside the file."""
    in_file = SamplingDefaults(
        temperature=gguf.number("general.sampling.temp"),
        top_p=gguf.number("general.sampling.top_p"),
        top_k=gguf.integer("general.sampling.top_k"),
        min_p=gguf.number("general.sampling.min_p"),
        repetition_penalty=gguf.number("general.sampling.penalty_repeat"),
    )
    return file.sampling if in_file == SamplingDefaults() else in_file
