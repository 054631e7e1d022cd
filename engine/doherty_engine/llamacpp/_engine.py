"""The engine: loads the model, runs a thread for each request, and brings what they produce to the event loop."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from doherty_engine._engine import Health, ModelInfo, RequestHandle, SamplingDefaults, StepSink
from doherty_engine._errors import EngineFailedError, EngineSetupError
from doherty_engine._outputs import StepOutput
from doherty_engine._requests import AnswerPrefix, EngineRequest, Input
from doherty_engine._warm_up import RefusedHandle, WarmUp, discard
from doherty_engine.constraints import FormCompiler
from doherty_engine.llamacpp._gguf import Gguf
from doherty_engine.llamacpp._model_file import ModelFile, find_model
from doherty_engine.llamacpp._options import Options, default_threads
from doherty_engine.llamacpp._outbox import Outbox
from doherty_engine.llamacpp._parts import read_model
from doherty_engine.llamacpp._pool import Pool
from doherty_engine.llamacpp._reader import InputReader
from doherty_engine.llamacpp._server import LlamaServer, LlamaServerGoneError
from doherty_engine.llamacpp._slots import Slots
from doherty_engine.llamacpp._vocabulary import Vocabulary
from doherty_engine.llamacpp._work import Work, Workshop
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
    """Makes the engine, not yet started."""
    return LlamaCppEngine(options)


class LlamaCppEngine:
    """Generates text with llama.cpp on the CPU; keeps the Protocol `Engine`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # One thread a slot; those who only count tokens must not keep any of them waiting.
        self._threads = ThreadPoolExecutor(options.slots, thread_name_prefix="llamacpp")
        self._counters = ThreadPoolExecutor(1, thread_name_prefix="llamacpp-count")
        self._running: dict[str, tuple[Work, Future[None]]] = {}
        self._sink: StepSink = discard
        self._loading: Future[None] | None = None
        self._shop: Workshop | None = None
        self._info: ModelInfo | None = None
        self._failure = ""

    async def start(self, sink: StepSink) -> None:
        """Loads the model and generates a few tokens to warm up.

        Raises:
            EngineSetupError: it cannot start; the message says what to do.
        """
        self._outbox = Outbox(asyncio.get_running_loop(), self._deliver)
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
        """Begins a request; never blocks. All that goes wrong with it comes as StepOutput.error."""
        if self._shop is None:
            gone = StepOutput(request.key, error=EngineFailedError("the engine is not running"))
            asyncio.get_running_loop().call_soon(self._sink, [gone])
            return RefusedHandle()
        work = Work(request, self._shop)
        self._running[request.key] = work, self._threads.submit(work.run)
        return work

    async def count_tokens(self, content: Input | AnswerPrefix) -> int:
        """Counts the tokens of an input, or of a held part, as the model would read it.

        Raises:
            InvalidInputError: it cannot be read, for instance by the chat template.
            UnsupportedError: the tokenizer changes the held text.
            EngineFailedError: the engine is not running.
        """
        counting: Future[int] = self._counters.submit(self._loaded().reader.count, content)
        try:
            return await asyncio.wrap_future(counting)
        except asyncio.CancelledError:
            if self._shop is not None:
                raise  # the caller's own
            raise EngineFailedError("the engine was stopped") from None

    def info(self) -> ModelInfo:
        """Tells what the engine serves; callable once `start` has returned."""
        if self._info is None:
            raise EngineFailedError("the engine has not been started")
        return self._info

    def health(self) -> Health:
        """Tells how the engine is, without waiting for anything."""
        if self._shop is None:
            return Health(ok=False, detail="the engine is not running")
        return Health(
            ok=not self._failure,
            detail=self._failure,
            kv_cache_use=self._shop.cache.use,
            # A copy: the event loop may begin or end a request while another thread asks.
            last_progress=max((work.last_progress for work, _ in list(self._running.values())), default=None),
        )

    async def stop(self) -> None:
        """Aborts what is running, gives every resource back, and returns when that is done. May be called twice."""
        if self._loading is not None:  # a load cannot be broken off, and what it loaded must be given back
            await asyncio.gather(asyncio.wrap_future(self._loading), return_exceptions=True)
        shop, self._shop = self._shop, None
        for work, _ in self._running.values():
            work.abort()
        running = [asyncio.wrap_future(future) for _, future in self._running.values()]
        await asyncio.gather(*running, return_exceptions=True)
        # llama.cpp's end waits for the answers that its HTTP listener still owes, and with the interpreter's lock held
        # nobody would fetch them: so nothing may be counted any more.
        await asyncio.to_thread(self._counters.shutdown, cancel_futures=True)
        if shop is not None:
            self._outbox.flush()
            await asyncio.get_running_loop().run_in_executor(self._threads, shop.server.close)
        self._threads.shutdown()

    def _load(self) -> None:
        options = self._options
        forms = FormCompiler(extra="cpu")
        file = find_model(options.model, options.revision)
        gguf = read_model(file.path)
        vocabulary = Vocabulary(gguf)
        context_tokens = _context_tokens(options, gguf)
        threads = options.threads or default_threads()
        server = LlamaServer(file.path, gguf=gguf, slots=options.slots, context_tokens=context_tokens, threads=threads)
        self._shop = Workshop(
            server=server,
            vocabulary=vocabulary,
            reader=InputReader(server, vocabulary, context_tokens),
            forms=forms,
            cache=Pool(context_tokens),
            prompts=Pool(1),
            slots=Slots(options.slots),
            context_tokens=context_tokens,
            prompt_cache=options.prompt_cache,
            emit=self._outbox.put,
        )
        if gguf.has_chat_template and not server.has_chat_template:
            _log.warning(UNUSABLE_TEMPLATE)
        features = _FEATURES | _TEMPLATED if server.has_chat_template else _FEATURES
        self._info = _describe(file, gguf, self._shop, options.slots, features)

    def _loaded(self) -> Workshop:
        if self._shop is None:
            raise EngineFailedError("the engine is not running")
        return self._shop

    def _deliver(self, outputs: Sequence[StepOutput]) -> None:
        wanted: list[StepOutput] = []
        for output in outputs:
            work, _ = self._running[output.key]
            # What a thread had sent before it saw the abort.
            if output.is_last or not work.aborted:
                wanted.append(output)
            if output.is_last:
                del self._running[output.key]
            if isinstance(output.error, LlamaServerGoneError):
                self._failure = str(output.error)
        if wanted:
            self._sink(wanted)


def _context_tokens(options: Options, gguf: Gguf) -> int:
    trained = gguf.context_tokens or _DEFAULT_CONTEXT_TOKENS
    wanted = options.context_tokens or min(_DEFAULT_CONTEXT_TOKENS, trained)
    if wanted > trained:
        raise EngineSetupError(f"The model has a context of {trained} tokens; set context_tokens to at most that.")
    return wanted


def _describe(file: ModelFile, gguf: Gguf, shop: Workshop, slots: int, features: frozenset[str]) -> ModelInfo:
    return ModelInfo(
        model=file.model,
        revision=file.revision,
        engine="llamacpp",
        engine_version=shop.server.version,
        context_tokens=shop.context_tokens,
        vocabulary_size=len(shop.vocabulary),
        slots=slots,
        features=features,
        max_top_logprobs=_MAX_TOP_LOGPROBS,
        longest_token_bytes=max(map(len, shop.vocabulary.pieces)),
        default_sampling=_default_sampling(file, gguf),
    )


def _default_sampling(file: ModelFile, gguf: Gguf) -> SamplingDefaults:
    """What the file itself says; where it says nothing, what is recommended for it elsewhere."""
    said = SamplingDefaults(
        temperature=gguf.number("general.sampling.temp"),
        top_p=gguf.number("general.sampling.top_p"),
        top_k=gguf.integer("general.sampling.top_k"),
        min_p=gguf.number("general.sampling.min_p"),
        repetition_penalty=gguf.number("general.sampling.penalty_repeat"),
    )
    return file.sampling if said == SamplingDefaults() else said
