"""The base class of engines: start, stop, and the delivery of outputs."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from doherty_engine._engine import Health, ModelInfo, RequestHandle, StepSink
from doherty_engine._errors import EngineFailedError
from doherty_engine._outputs import FinishReason, StepOutput
from doherty_engine._requests import AnswerPrefix, EngineRequest, Input
from doherty_engine._warm_up import RefusedHandle, WarmUp, discard
from doherty_engine.tokens._request import EngineContext, TokenRequest

ContextT = TypeVar("ContextT", bound=EngineContext)
RequestT = TypeVar("RequestT", bound=TokenRequest[Any])

_log = logging.getLogger("doherty.engine")


class TokenEngine(ABC, Generic[ContextT, RequestT]):
    """Implements the Protocol `Engine`, which describes the public methods.

    A subclass loads the model and makes requests.

    All outputs of one turn of the event loop are passed to the sink in one call. If the steps of a library take more
    than one turn, the subclass calls `_flush` at the end of each step.
    """

    def __init__(self) -> None:
        self._sink: StepSink = discard
        self._context: ContextT | None = None
        self._info: ModelInfo | None = None
        self._fault = "the engine has not been started"
        """Why the engine does not work; empty while it works."""
        self._requests: dict[str, RequestT] = {}
        """The requests that have not ended, by key."""
        self._outputs: list[StepOutput] = []
        """Outputs that were not passed to the sink yet."""
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def _load(self) -> ContextT:
        """Loads the model.

        Raises:
            EngineSetupError: It cannot be loaded; the message says what to do.
        """

    @abstractmethod
    def _describe(self, context: ContextT) -> ModelInfo:
        """Returns the result of `info`."""

    @abstractmethod
    def _make_request(self, request: EngineRequest, context: ContextT) -> RequestT:
        """Makes the request to run."""

    @abstractmethod
    async def _unload(self) -> None:
        """Waits for `_tasks` and frees all resources. May be called twice, and before `_load` is done."""

    async def start(self, sink: StepSink) -> None:
        try:
            self._context = await self._load()
            self._info = self._describe(self._context)
            self._fault = ""
            await self._warm_up(self._info)
        except BaseException:
            await self.stop()
            raise
        self._sink = sink

    def submit(self, request: EngineRequest) -> RequestHandle:
        if self._context is None or self._fault:
            return self._refuse(request, self._fault)
        running = self._requests[request.key] = self._make_request(request, self._context)
        self.spawn(running.run())
        return running

    async def count_tokens(self, content: Input | AnswerPrefix) -> int:
        if self._context is None or self._fault:
            raise EngineFailedError(self._fault)
        return await self._context.reader.count(content)

    def info(self) -> ModelInfo:
        if self._info is None:
            raise EngineFailedError(self._fault)
        return self._info

    def health(self) -> Health:
        return Health(ok=not self._fault, detail=self._fault)

    async def stop(self) -> None:
        self._fault = self._fault or "the engine has been stopped"
        for request in list(self._requests.values()):
            request.end(FinishReason.ABORTED)
        self._flush()
        await self._unload()
        self._context = None

    def emit(self, output: StepOutput) -> None:
        """Passes an output to the sink, together with the others of this turn of the event loop."""
        if not self._outputs:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outputs.append(output)

    def emit_last(self, output: StepOutput) -> None:
        """Passes the last output of a request to the sink."""
        del self._requests[output.key]
        self.emit(output)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine as a task of the engine."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _warm_up(self, info: ModelInfo) -> None:
        warm_up = WarmUp(self.submit, info)
        self._sink = warm_up.sink
        await warm_up.run()

    def _refuse(self, request: EngineRequest, reason: str) -> RequestHandle:
        self.emit(StepOutput(request.key, error=EngineFailedError(reason)))
        return RefusedHandle()

    def _flush(self) -> None:
        outputs, self._outputs = self._outputs, []
        if outputs:
            try:
                self._sink(outputs)
            except Exception:  # noqa: BLE001  the outputs of the next step must be delivered in any case
                _log.exception("the outputs of a step could not be delivered")
