"""What an engine needs before it has a sink, and when it has no use for a request."""

import asyncio
from collections.abc import Sequence

from doherty_engine._errors import EngineSetupError
from doherty_engine._outputs import StepOutput


class Trial:
    """Waits for the end of one request of an engine that warms up."""

    def __init__(self) -> None:
        self._last: asyncio.Future[StepOutput] = asyncio.get_running_loop().create_future()

    def sink(self, outputs: Sequence[StepOutput]) -> None:
        """Is the engine's sink meanwhile."""
        for output in outputs:
            if output.is_last and not self._last.done():
                self._last.set_result(output)

    async def succeeds(self) -> None:
        """Waits for the last output.

        Raises:
            EngineSetupError: it is an error.
        """
        last = await self._last
        if last.error is not None:
            raise EngineSetupError(f"The model cannot answer ({last.error}); name another model.") from last.error


class RefusedHandle:
    """The handle of a request that was over at once."""

    def abort(self) -> None:
        """Does nothing: there is nothing to drop."""


def drop(outputs: Sequence[StepOutput]) -> None:
    """The sink of an engine that has none yet."""
