"""The engine: hands requests to vLLM, and fetches what each of its steps gave."""

import asyncio
import logging
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from doherty_engine._engine import Health, ModelInfo, RequestHandle, StepSink
from doherty_engine._errors import EngineFailedError, EngineSetupError
from doherty_engine._outputs import StepOutput
from doherty_engine._requests import Choices, EngineRequest, HeldPart, Input, RawText, Stopping
from doherty_engine._trial import RefusedHandle, Trial, drop
from doherty_engine.vllm._guard import Guard
from doherty_engine.vllm._library import first_line
from doherty_engine.vllm._load import load
from doherty_engine.vllm._options import Options
from doherty_engine.vllm._work import Work, Workshop

_log = logging.getLogger("doherty.engine")
_WARM_UP_TOKENS = 4
_LOOK_SECONDS = 0.2
"""How often a load that shall be broken off is looked at."""


def create(options: Options) -> "VllmEngine":
    """Makes the engine, not yet started."""
    return VllmEngine(options)


class VllmEngine:
    """Generates text with vLLM on a GPU; keeps the Protocol `Engine`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vllm")
        self._sink: StepSink = drop
        self._guard: Guard | None = None
        self._loading: Future[tuple[Workshop, ModelInfo]] | None = None
        self._shop: Workshop | None = None
        self._info: ModelInfo | None = None
        self._works: dict[str, Work] = {}
        """Those whose last output has not been told."""
        self._in_vllm: dict[str, Work] = {}
        """Those of them that vLLM works on."""
        self._untold: list[StepOutput] = []
        self._news = asyncio.Event()
        """Set when there is something to tell: it is the `ready` of every one of vLLM's collectors."""
        self._telling: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, sink: StepSink) -> None:
        """Loads the model and generates a few tokens to warm up.

        Raises:
            EngineSetupError: it cannot start; the message says what to do.
        """
        try:
            self._guard = Guard()
            self._loading = self._thread.submit(load, self._options, self._guard)
            shop, info = await asyncio.wrap_future(self._loading)
            self._shop, self._info = shop, info
            self._telling = asyncio.create_task(self._tell_news())
            await self._load_adapters(shop)
            await self._warm_up(info)
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
        work = self._works[request.key] = Work(request, self._shop, self)
        self.spawn(work.run())
        return work

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
        shop = self._shop
        if shop is None:
            return Health(ok=False, detail="the engine is not running")
        is_dead: bool = shop.llm.errored
        return Health(
            ok=not is_dead,
            detail="vLLM's process has died; its own log says why" if is_dead else "",
            kv_cache_use=shop.board.kv_cache_use,
            last_progress=shop.board.last_step,
            drafting=shop.board.drafting() if shop.speculates else None,
        )

    async def stop(self) -> None:
        """Aborts what is running, gives every resource back, and returns when that is done. May be called twice."""
        try:
            loaded = await self._break_off_loading()
            self._shop = None
            for work in list(self._works.values()):
                work.abort()
            self._deliver()
            if self._telling is not None:
                self._telling.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if loaded is not None:
                await self._shut_down(loaded)
        finally:
            self._loading = None
            self._thread.shutdown(wait=False)
            if self._guard is not None:
                await asyncio.to_thread(self._guard.close)

    def begin(self, work: Work, collector: Any) -> None:
        """Fetches what vLLM gives to `collector` from now on; for a Work to call."""
        # vLLM gives every collector its share of a step before anything else may run, so that one task that they all
        # wake tells the whole step in one call. AsyncLLM.generate would want a task and a generator for each request.
        collector.ready = self._news
        self._news.set()  # for what may be there already
        self._in_vllm[work.key] = work

    def tell(self, output: StepOutput) -> None:
        """Tells an output that belongs to no step; for a Work to call."""
        self._untold.append(output)
        self._news.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something beside the caller; for a Work to call."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_news(self) -> None:
        while True:
            await self._news.wait()
            self._deliver()

    def _deliver(self) -> None:
        """Tells all that there is in one call."""
        self._news.clear()
        outputs, self._untold = self._untold, []
        for work in self._in_vllm.values():
            if not work.is_over and (output := work.collect()) is not None:
                outputs.append(output)
        for output in outputs:
            if output.is_last:
                del self._works[output.key]
                self._in_vllm.pop(output.key, None)
        if outputs:
            try:
                self._sink(outputs)
            except Exception:  # noqa: BLE001  whatever it is, the next step must be told all the same
                _log.exception("what vLLM gave in a step could not be told")

    async def _shut_down(self, shop: Workshop) -> None:
        """Waits for vLLM's processes to end; what it leaves behind is the guard's."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, shop.llm.shutdown)
        except Exception:  # noqa: BLE001  vLLM, CUDA and ZeroMQ have no base in common
            _log.exception("vLLM could not be shut down; its processes are ended now")

    async def _break_off_loading(self) -> Workshop | None:
        """Waits for the end of the load, if one is under way, and hastens it; returns what was loaded, if anything."""
        if self._loading is None:
            return None
        loading = asyncio.wrap_future(self._loading)
        while not loading.done() and self._guard is not None:
            self._guard.terminate()
            await asyncio.wait([loading], timeout=_LOOK_SECONDS)
        (found,) = await asyncio.gather(loading, return_exceptions=True)
        return None if isinstance(found, BaseException) else found[0]

    async def _load_adapters(self, shop: Workshop) -> None:
        for name, adapter in shop.adapters.items():
            try:
                await shop.llm.add_lora(adapter)
            except Exception as error:
                raise EngineSetupError(
                    f"The adapter {name} cannot be loaded ({first_line(error)}); leave it out, or name another path."
                ) from error

    async def _warm_up(self, info: ModelInfo) -> None:
        stopping = Stopping(max_output_tokens=_WARM_UP_TOKENS, ignore_eos=True)
        await self._try(EngineRequest("warm-up", RawText("Hello"), stopping=stopping))
        if "constraint.choices" in info.features:  # the first one makes vLLM build a table of the whole vocabulary
            await self._try(EngineRequest("warm-up", RawText("Hello"), constraint=Choices(("Hello",))))

    async def _try(self, request: EngineRequest) -> None:
        trial = Trial()
        self._sink = trial.sink
        self.submit(request)
        await trial.succeeds()
