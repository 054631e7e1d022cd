"""Loads and unloads a model in a thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

LoadedT = TypeVar("LoadedT")

_POLL_SECONDS = 0.2
"""The interval at which `interrupt` is called until the load ends."""


class ModelLoader(Generic[LoadedT]):
    """Loads a model once, in its own thread.

    Args:
        load: Loads the model; blocks.
        unload: Frees the model; blocks.
        interrupt: Makes a running `load` fail soon, if possible.
    """

    def __init__(
        self,
        load: Callable[[], LoadedT],
        unload: Callable[[LoadedT], None],
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        self._load = load
        self._unload = unload
        self._interrupt = interrupt
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-loader")
        self._loading: Future[LoadedT] | None = None

    async def load(self) -> LoadedT:
        """Loads the model. If the caller is cancelled, loading continues until `unload`."""
        self._loading = self._thread.submit(self._load)
        return await asyncio.wrap_future(self._loading)

    async def unload(self) -> None:
        """Waits until a running load has ended, and unloads the model. May be called twice."""
        loading, self._loading = self._loading, None
        try:
            if loading is not None:
                await self._wait(asyncio.wrap_future(loading))
                if not loading.cancelled() and loading.exception() is None:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(self._thread, self._unload, loading.result())
        finally:
            self._thread.shutdown(wait=False)

    async def _wait(self, loading: asyncio.Future[LoadedT]) -> None:
        while not loading.done():
            if self._interrupt is not None:
                self._interrupt()
            await asyncio.wait([loading], timeout=_POLL_SECONDS)
        await asyncio.gather(loading, return_exceptions=True)
