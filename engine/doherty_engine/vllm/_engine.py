"""The engine: passes requests to vLLM, and collects the outputs of its steps."""

import asyncio
import logging
from functools import partial

from doherty_engine._engine import Health, ModelInfo
from doherty_engine._errors import EngineSetupError
from doherty_engine._requests import EngineRequest
from doherty_engine.tokens import ModelLoader, TokenEngine
from doherty_engine.vllm._context import VllmContext
from doherty_engine.vllm._features import describe
from doherty_engine.vllm._guard import Guard
from doherty_engine.vllm._library import first_lines
from doherty_engine.vllm._load import load
from doherty_engine.vllm._options import Options
from doherty_engine.vllm._request import VllmRequest

_log = logging.getLogger("doherty.engine")


class VllmEngine(TokenEngine[VllmContext, VllmRequest]):
    """Generates text with vLLM on a GPU."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        self._guard: Guard | None = None
        self._loader: ModelLoader[VllmContext] | None = None
        self._delivery: asyncio.Task[None] | None = None

    def health(self) -> Health:
        context = self._context
        if context is None:
            return super().health()
        fault = self._fault
        if context.llm.errored:
            fault = "vLLM's process has died; its own log says why"
        return Health(
            ok=not fault,
            detail=fault,
            kv_cache_use=context.board.kv_cache_use,
            last_progress=context.board.last_step,
            drafting=context.board.drafting() if context.speculates else None,
        )

    async def _load(self) -> VllmContext:
        self._guard = Guard()
        self._loader = ModelLoader(partial(load, self._options, self._guard), _shut_down, self._guard.terminate)
        context = await self._loader.load()
        self._delivery = asyncio.create_task(self._deliver(context))
        await _load_adapters(context)
        return context

    def _describe(self, context: VllmContext) -> ModelInfo:
        return describe(self._options, context)

    def _make_request(self, request: EngineRequest, context: VllmContext) -> VllmRequest:
        return VllmRequest(request, context, self)

    async def _unload(self) -> None:
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._delivery is not None:
                self._delivery.cancel()
            if self._loader is not None:
                await self._loader.unload()
        finally:
            if self._guard is not None:
                await asyncio.to_thread(self._guard.close)

    async def _deliver(self, context: VllmContext) -> None:
        """Delivers the outputs of each step in one call.

        vLLM fills all collectors with the outputs of a step before the event loop runs anything else. So this task,
        which every collector wakes, sees the whole step. AsyncLLM.generate would need a task and a generator per
        request.
        """
        while True:
            await context.has_outputs.wait()
            context.has_outputs.clear()
            for request in list(self._requests.values()):
                request.collect()
            self._flush()


def _shut_down(context: VllmContext) -> None:
    """Waits until vLLM's processes end. The guard ends any that are left."""
    try:
        context.llm.shutdown()
    except Exception:  # noqa: BLE001  the exceptions of vLLM, CUDA and ZeroMQ have no common base class
        _log.exception("vLLM could not be shut down; its processes are ended now")


async def _load_adapters(context: VllmContext) -> None:
    for name, adapter in context.adapters.items():
        try:
            await context.llm.add_lora(adapter)
        except Exception as error:
            raise EngineSetupError(
                f"The adapter {name} cannot be loaded ({first_lines(error)}); leave it out, or name another path."
            ) from error
