"""Runs an engine and collects its outputs, for the tests of engines."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from doherty_engine import (
    Engine,
    EngineError,
    EngineRequest,
    Finish,
    RequestHandle,
    Started,
    StepOutput,
    TokenLogprob,
    create_engine,
)


@dataclass(frozen=True)
class Outcome:
    """All outputs of an engine for one request."""

    outputs: tuple[StepOutput, ...]

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.outputs)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token_id for output in self.outputs for token_id in output.token_ids or ())

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        return tuple(logprob for output in self.outputs for logprob in output.logprobs or ())

    @property
    def token_count(self) -> int:
        return sum(output.token_count for output in self.outputs)

    @property
    def started(self) -> Started:
        (started,) = [output.started for output in self.outputs if output.started is not None]
        return started

    @property
    def finish(self) -> Finish:
        assert self.outputs[-1].finish is not None, self.outputs[-1].error
        return self.outputs[-1].finish

    @property
    def error(self) -> EngineError:
        assert self.outputs[-1].error is not None, self.outputs[-1]
        return self.outputs[-1].error


class EngineLab:
    """Runs an engine and keeps the outputs of each step."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.steps: list[list[StepOutput]] = []
        self._by_key: defaultdict[str, list[StepOutput]] = defaultdict(list)
        self._changed = asyncio.Event()

    def sink(self, outputs: Sequence[StepOutput]) -> None:
        self.steps.append(list(outputs))
        for output in outputs:
            kept = self._by_key[output.key]
            assert not (kept and kept[-1].is_last), "an output followed the last one"
            kept.append(output)
        self._changed.set()

    def submit(self, request: EngineRequest) -> RequestHandle:
        return self.engine.submit(request)

    def outputs(self, key: str) -> tuple[StepOutput, ...]:
        return tuple(self._by_key[key])

    def is_over(self, key: str) -> bool:
        outputs = self._by_key[key]
        return bool(outputs) and outputs[-1].is_last

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def outcome(self, key: str) -> Outcome:
        await self.until(lambda: self.is_over(key))
        return Outcome(self.outputs(key))

    async def ask(self, request: EngineRequest) -> Outcome:
        self.submit(request)
        return await self.outcome(request.key)


@asynccontextmanager
async def running(engine_name: str, **options: str) -> AsyncIterator[EngineLab]:
    """Starts an engine, and stops it at the end of the block."""
    lab = EngineLab(create_engine(engine_name, options))
    await lab.engine.start(lab.sink)
    try:
        yield lab
    finally:
        await lab.engine.stop()
