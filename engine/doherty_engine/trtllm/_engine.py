"""The engine: TensorRT-LLM's `LLM` runs in this process, its worker in a separate one."""

import asyncio
from functools import partial
from typing import Any

from doherty_engine._engine import Health, ModelInfo
from doherty_engine._requests import EngineRequest
from doherty_engine.tokens import ModelLoader, TokenEngine
from doherty_engine.trtllm._context import TrtLlmContext
from doherty_engine.trtllm._features import describe
from doherty_engine.trtllm._load import load_model
from doherty_engine.trtllm._options import Options
from doherty_engine.trtllm._request import TrtLlmRequest


class TrtLlmEngine(TokenEngine[TrtLlmContext, TrtLlmRequest]):
    """Generates text with TensorRT-LLM on NVIDIA's GPUs."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._loader = ModelLoader(partial(load_model, options), TrtLlmContext.close)

    def health(self) -> Health:
        if not self._fault and self._context is not None and not _is_healthy(self._context.llm):
            self._fault = "TensorRT-LLM reports that its worker is unhealthy"
        return super().health()

    async def _load(self) -> TrtLlmContext:
        return await self._loader.load()

    def _describe(self, context: TrtLlmContext) -> ModelInfo:
        return describe(context)

    def _make_request(self, request: EngineRequest, context: TrtLlmContext) -> TrtLlmRequest:
        return TrtLlmRequest(request, context, self, self._note_fault)

    async def _unload(self) -> None:
        for task in self._tasks:  # if the worker has died, they would never end
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loader.unload()

    def _note_fault(self, fault: str) -> None:
        self._fault = self._fault or fault


def _is_healthy(llm: Any) -> bool:
    """Calls TensorRT-LLM's own health check, a private method that not every version has."""
    check = getattr(llm, "_check_health", None)
    try:
        return True if check is None else bool(check())
    except Exception:  # noqa: BLE001  the method is private; any exception means that the worker is unhealthy
        return False
