"""Warms up an engine that has just started; a sink and a handle for engines that cannot work."""

import asyncio
from collections.abc import Callable, Sequence

from doherty_engine._engine import ModelInfo, RequestHandle
from doherty_engine._errors import EngineSetupError
from doherty_engine._outputs import StepOutput
from doherty_engine._requests import Choices, EngineRequest, RawText, Sampling, Stopping

_TOKENS = 4


class WarmUp:
    """Lets a new engine generate a few tokens, and a constrained answer if it supports constraints.

    For the first constraint, the libraries build a table of the whole vocabulary, which may take seconds.
    """

    def __init__(self, submit: Callable[[EngineRequest], RequestHandle], info: ModelInfo) -> None:
        self._submit = submit
        self._info = info
        self._last: asyncio.Future[StepOutput] | None = None

    def sink(self, outputs: Sequence[StepOutput]) -> None:
        """The sink to use during the warm-up."""
        for output in outputs:
            if output.is_last and self._last is not None and not self._last.done():
                self._last.set_result(output)

    async def run(self) -> None:
        """Warms the engine up.

        Raises:
            EngineSetupError: The engine cannot generate.
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
            raise EngineSetupError(f"The model cannot answer ({last.error}); choose another model.") from last.error


class RefusedHandle:
    """The handle of a request that was refused."""

    is_read = False

    def abort(self) -> None:
        """Does nothing, because the request has already ended."""


def discard(outputs: Sequence[StepOutput]) -> None:
    """A sink that ignores its outputs, for an engine that has no sink yet."""
