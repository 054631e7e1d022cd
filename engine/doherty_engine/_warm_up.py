"""What an engine needs before it has a sink, and for requests that it refuses."""

import asyncio
from collections.abc import Callable, Sequence

from doherty_engine._engine import ModelInfo, RequestHandle
from doherty_engine._errors import EngineSetupError
from doherty_engine._outputs import StepOutput
from doherty_engine._requests import Choices, EngineRequest, RawText, Sampling, Stopping

_TOKENS = 4


class WarmUp:
    """Asks an engine that has just started for a few tokens, and for a constrained answer if it can give one.

    The first constraint makes the libraries build a table of the whole vocabulary, which takes up to seconds.
    """

    def __init__(self, submit: Callable[[EngineRequest], RequestHandle], info: ModelInfo) -> None:
        self._submit = submit
        self._info = info
        self._last: asyncio.Future[StepOutput] | None = None

    def sink(self, outputs: Sequence[StepOutput]) -> None:
        """The engine's sink meanwhile."""
        for output in outputs:
            if output.is_last and self._last is not None and not self._last.done():
                self._last.set_result(output)

    async def run(self) -> None:
        """Warms the engine up.

        Raises:
            EngineSetupError: It cannot answer.
        """
        temperature = self._info.default_sampling.temperature
        request = EngineRequest(
            "warm-up",
            RawText("Hello"),
            Sampling() if temperature is None else Sampling(temperature=temperature),
            Stopping(max_output_tokens=_TOKENS, ignore_eos=True),
        )
        await self._try(request)
        if "constraint.choices" in self._info.features:
            constraint = Choices(("Hello",))
            await self._try(EngineRequest("warm-up", request.input, request.sampling, constraint=constraint))

    async def _try(self, request: EngineRequest) -> None:
        self._last = asyncio.get_running_loop().create_future()
        self._submit(request)
        last = await self._last
        if last.error is not None:
            raise EngineSetupError(f"The model cannot answer ({last.error}); name another model.") from last.error


class RefusedHandle:
    """The handle of a request that was over at once."""

    is_read = False

    def abort(self) -> None:
        """Does nothing: there is nothing to drop."""


def discard(outputs: Sequence[StepOutput]) -> None:
    """The sink of an engine that has none yet."""
