"""The measurements of one request of a load."""

import asyncio
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

from doherty import AsyncClient, DohertyError, Generation, RpcError, Timings
from doherty.cli._load._prompts import LoadPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The measurements of one request. All times are in seconds since the request was due."""

    number: int
    due: float
    """When the request was due, by `perf_counter`."""
    late: float
    """The time from when the request was due until it was made."""
    send_wait: float | None = None
    """The time that the request waited for the event loop, which was busy with others, before it was sent."""
    total: float
    """The time until the end of the call."""
    time_to_first_token: float | None = None
    """None if there was no token, or the call was unary."""
    time_to_last_token: float | None = None
    gaps: "array[float]"
    """The times between messages that carry tokens (inter-token latencies)."""
    messages: int = 0
    """The number of messages that the client received."""
    output_tokens: int = 0
    server: Timings | None = None
    """The server's timings; None without an answer."""
    failure: tuple[str, str] | None = None
    """The code and the reason of the error, if the request failed."""

    @property
    def time_per_output_token(self) -> float | None:
        """TPOT: the mean gap between tokens."""
        if self.time_to_first_token is None or self.time_to_last_token is None or self.output_tokens < 2:  # noqa: PLR2004 - one token has no gap
            return None
        return (self.time_to_last_token - self.time_to_first_token) / (self.output_tokens - 1)

    @property
    def outside(self) -> float | None:
        """The part of the total outside the server, without the late start: in the network and this process."""
        if self.server is None or self.server.total is None:
            return None
        return max(0.0, self.total - self.late - self.server.total)


@dataclass(frozen=True, slots=True)
class Asker:
    """Makes the requests of a load."""

    client: AsyncClient
    prompts: tuple[LoadPrompt, ...]
    """Taken in turn."""
    streaming: bool
    max_output_tokens: int | None
    take: Callable[[Sample, DohertyError | None], None]
    """Called with each sample and its error."""

    async def __call__(self, number: int, due: float | None) -> None:
        """Makes a request, and measures it to its end."""
        started = perf_counter()
        due = started if due is None else due
        prompt = self.prompts[number % len(self.prompts)]
        marks: array[float] = array("d")
        turns: list[float] = []
        # gRPC sends in a task of its own, which runs right after this callback.
        asyncio.get_running_loop().call_soon(lambda: turns.append(perf_counter()))
        answer: Generation | None = None
        failure: DohertyError | None = None
        try:
            answer = await (self._stream(prompt, marks) if self.streaming else self._generate(prompt))
        except DohertyError as error:
            failure = error
        sample = Sample(
            number=number,
            due=due,
            late=started - due,
            send_wait=turns[0] - started if turns else None,
            total=perf_counter() - due,
            time_to_first_token=marks[0] - due if marks else None,
            time_to_last_token=marks[-1] - due if marks else None,
            gaps=array("d", (after - before for before, after in pairwise(marks))),
            messages=len(marks) if self.streaming else int(answer is not None),
            output_tokens=answer.usage.output_tokens if answer else 0,
            server=answer.timings if answer else None,
            failure=None if failure is None else _name(failure),
        )
        self.take(sample, failure)

    async def _stream(self, prompt: LoadPrompt, marks: "array[float]") -> Generation:
        async with self.client.stream_generate(prompt, max_output_tokens=self.max_output_tokens) as stream:
            async for delta in stream:
                if delta.token_count:
                    marks.append(perf_counter())
            return await stream.result()

    async def _generate(self, prompt: LoadPrompt) -> Generation:
        return await self.client.generate(prompt, max_output_tokens=self.max_output_tokens)


def _name(error: DohertyError) -> tuple[str, str]:
    """The code and the reason of an error, or its class where it has no code."""
    return (error.code.name, error.reason or "-") if isinstance(error, RpcError) else (type(error).__name__, "-")
