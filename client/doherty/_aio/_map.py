"""Makes many requests, a limited number of them at a time."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, Self

from doherty._aio._loop import running_loop
from doherty._core._errors import ClientClosedError, DohertyError, EventLoopError, ForkError, InvalidRequestError
from doherty._core._map import MapResult
from doherty._core._results import Generation, ParsedT_co

if TYPE_CHECKING:
    from doherty._core._prompt import Prompt

    Ask = Callable[[Prompt], Awaitable[Generation[ParsedT_co]]]

_AHEAD: Final = 4
"""Requests whose results have not been read, including finished ones, are at most this multiple of `concurrency`."""

_UNUSABLE: Final = (ClientClosedError, EventLoopError, ForkError)
"""Errors that would also end all further requests."""


class AsyncMap(Generic[ParsedT_co]):
    """The results of many requests: an asynchronous iterator, and a context manager.

    One task reads it. Leaving the context, `aclose`, dropping the object, and cancelling the task that reads it cancel
    the requests that run.
    """

    def __init__(self, ask: "Ask[ParsedT_co]", prompts: "Iterable[Prompt]", *, concurrency: int, ordered: bool) -> None:
        """Starts no request yet. `ask` raises TypeError or ValueError immediately if a prompt cannot be sent."""
        if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
            raise TypeError(f"prompts= is an iterable of prompts, not {type(prompts).__name__}.")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int):
            raise TypeError(f"concurrency= is an int, not {type(concurrency).__name__}.")
        if concurrency < 1:
            raise ValueError(f"concurrency= is at least 1, not {concurrency}.")
        self._ask = ask
        self._prompts = enumerate(prompts)
        self._concurrency = concurrency
        self._ordered = ordered
        self._loop = running_loop()
        self._tasks: dict[int, asyncio.Task[MapResult[ParsedT_co] | Exception]] = {}
        """Requests whose results have not been read, by the index of the prompt."""
        self._changed = asyncio.Event()
        """Set when a request has ended."""
        self._fault: Exception | None = None
        """The error that ends the iteration after the earlier results have been read."""
        self._has_more = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MapResult[ParsedT_co]:
        try:
            return await self._next()
        except StopAsyncIteration:
            raise
        except BaseException:
            self._cancel()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # The garbage collector runs in any thread. A loop that is closed has no tasks.
        for task in getattr(self, "_tasks", {}).values():
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(task.cancel)

    async def aclose(self) -> None:
        """Cancels the requests that run, and returns when they have ended."""
        tasks = tuple(self._tasks.values())
        self._cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cancel(self) -> None:
        self._has_more = False
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _next(self) -> MapResult[ParsedT_co]:
        self._begin_more()
        while (index := self._readable()) is None:
            if not self._tasks:
                if (fault := self._fault) is not None:
                    self._fault = None
                    raise fault
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        result = self._tasks.pop(index).result()
        self._begin_more()
        if isinstance(result, Exception):
            raise result
        return result

    def _readable(self) -> int | None:
        """Returns the index of the next result to read, if it is there."""
        for index, task in self._tasks.items():
            if task.done():
                return index
            if self._ordered:
                break
        return None

    def _begin_more(self) -> None:
        running = sum(not task.done() for task in self._tasks.values())
        while self._has_more and running < self._concurrency and len(self._tasks) < _AHEAD * self._concurrency:
            try:
                index, prompt = next(self._prompts)
            except StopIteration:
                self._has_more = False
            except Exception as fault:  # noqa: BLE001 - of the caller's iterator, which this may call in a callback
                self._has_more, self._fault = False, fault
            else:
                task = self._tasks[index] = self._loop.create_task(_answer(self._ask, index, prompt))
                # The task must not keep this object alive: dropping it cancels the task.
                task.add_done_callback(_calling(weakref.WeakMethod(self._note_end)))
                running += 1

    def _note_end(self) -> None:
        self._changed.set()
        self._begin_more()


def _calling(method: "weakref.WeakMethod[Callable[[], None]]") -> Callable[[object], None]:
    def call(_: object) -> None:
        if (called := method()) is not None:
            called()

    return call


async def _answer(ask: "Ask[ParsedT_co]", index: int, prompt: "Prompt") -> MapResult[ParsedT_co] | Exception:
    """Makes one request.

    Returns:
        Its result, or an exception that ends the iteration because it does not concern only this request.
    """
    try:
        answering = ask(prompt)
    except (TypeError, ValueError) as error:
        refusal = InvalidRequestError(str(error))
        refusal.__cause__ = error
        return MapResult(index=index, prompt=prompt, error=refusal)
    try:
        return MapResult(index=index, prompt=prompt, generation=await answering)
    except _UNUSABLE as error:
        return error
    except DohertyError as error:
        return MapResult(index=index, prompt=prompt, error=error)
    except Exception as error:  # noqa: BLE001 - it is raised where the results are read
        return error
