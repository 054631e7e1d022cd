"""Drives both clients in the same way, so that a test can run with both."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from doherty import (
    AsyncClient,
    AsyncGenerationStream,
    Client,
    Delta,
    GenerateOptions,
    Generation,
    GenerationStream,
    StreamEvent,
)

Kind = Literal["Client", "AsyncClient", "multiplex"]
"""Both clients, and the asynchronous client with all requests on one RPC."""

ENDLESS: dict[str, Any] = {"max_output_tokens": 6000, "options": GenerateOptions(ignore_eos=True)}
"""The parameters of an answer that takes the synthetic engine half a minute."""


async def _run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a method of either client without blocking the event loop."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


class StreamTwin:
    """A stream of either client."""

    def __init__(self, stream: GenerationStream | AsyncGenerationStream) -> None:
        self.stream: GenerationStream | AsyncGenerationStream = stream

    async def enter(self) -> None:
        """Enters the block of the stream. It stays open when this method returns."""
        if isinstance(self.stream, AsyncGenerationStream):
            await self.stream.__aenter__()
        else:
            await asyncio.to_thread(self.stream.__enter__)

    async def events(self) -> AsyncIterator[StreamEvent]:
        """Returns the remaining items of `events`."""
        if isinstance(self.stream, AsyncGenerationStream):
            async for event in self.stream.events():
                yield event
            return
        events = self.stream.events()
        while (following := await asyncio.to_thread(next, events, None)) is not None:
            yield following

    async def next(self) -> Delta | None:
        """Returns the next delta; None at the end."""
        if isinstance(self.stream, AsyncGenerationStream):
            return await anext(self.stream, None)
        return await asyncio.to_thread(next, self.stream, None)

    async def rest(self) -> list[Delta]:
        """Returns all remaining deltas."""
        deltas: list[Delta] = []
        while (delta := await self.next()) is not None:
            deltas.append(delta)
        return deltas

    async def texts(self) -> list[str]:
        """Returns the remaining items of `text_stream`."""
        if isinstance(self.stream, AsyncGenerationStream):
            return [text async for text in self.stream.text_stream]
        return await asyncio.to_thread(list, self.stream.text_stream)

    async def result(self) -> Generation:
        answer: Generation = await _run(self.stream.result)
        return answer

    async def close(self) -> None:
        await _run(self.stream.close)


class Twin:
    """Either client."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    async def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return await _run(getattr(self.client, method), *args, **kwargs)

    async def generate(self, *args: Any, **kwargs: Any) -> Generation:
        answer: Generation = await self("generate", *args, **kwargs)
        return answer

    def stream(self, *args: Any, **kwargs: Any) -> StreamTwin:
        return StreamTwin(self.client.stream_generate(*args, **kwargs))

    async def aborts(self) -> int:
        """Waits until no request runs, and returns the number of cancelled requests."""
        while (latency := await self("latency")).running:
            pass
        return int(latency.aborts.get("cancelled", 0))

    async def wait_for_aborts(self, count: int) -> None:
        """Waits until a number of requests were cancelled.

        A server counts a request of a MultiplexGenerate when its last part has been written, which can be a little
        after its end.
        """
        while await self.aborts() < count:
            pass


@asynccontextmanager
async def open_twin(kind: Kind, target: str | Sequence[str] | None, **parameters: Any) -> AsyncIterator[Twin]:
    """Opens a client of the given kind, and closes it at the end of the block."""
    if kind == "Client":
        with Client(target, **parameters) as client:
            yield Twin(client)
    else:
        async with AsyncClient(target, multiplex=kind == "multiplex", **parameters) as client:
            yield Twin(client)
