"""More callers than a server has room for, each of which comes back when it is told to."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from doherty.v1 import generation_service_pb2_grpc, request_pb2
from support.wire import read_failure, request

_ATTEMPTS = "doherty-attempts"


@dataclass
class Crowd:
    """Callers of one server, and how they fared; `kept` and `broken` count those that came back as they were told."""

    target: str
    fields: Callable[[int], dict[str, Any]]
    """The request by its number."""
    deadline: float = 60.0
    says_again: bool = False
    """Whether those that come back say so, as the SDK does."""
    kept: int = 0
    broken: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    other: Counter[str] = field(default_factory=Counter)
    _counts_from: float = 0.0
    _ends_at: float = 0.0

    @property
    def kept_share(self) -> float:
        return self.kept / (self.kept + self.broken)

    async def run(self, callers: int, seconds: float) -> "Crowd":
        """Lets so many callers ask one thing after the other; the first quarter of the time is not counted."""
        self._counts_from = time.monotonic() + seconds / 4
        self._ends_at = time.monotonic() + seconds
        numbers = itertools.count()
        async with grpc.aio.insecure_channel(self.target) as channel, asyncio.TaskGroup() as tasks:
            stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
            for _ in range(callers):
                tasks.create_task(self._ask_on(stub, numbers))
        return self

    async def _ask_on(self, stub: Any, numbers: Iterator[int]) -> None:
        while time.monotonic() < self._ends_at:
            wire, attempts = request(**self.fields(next(numbers))), 0
            while (wait := await self._ask(stub, wire, attempts)) is not None and time.monotonic() < self._ends_at:
                await asyncio.sleep(wait)
                attempts += 1

    async def _ask(self, stub: Any, wire: request_pb2.GenerateRequest, attempts: int) -> float | None:
        """Sends a request; returns after how long to come back, or None when it is over."""
        metadata = [(_ATTEMPTS, str(attempts))] if self.says_again and attempts else None
        try:
            await stub.Generate(wire, timeout=self.deadline, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.other[error.code().name] += 1
                return None
            failure = read_failure(error)
            self.refusals[failure.reason] += 1
            self._note(attempts, kept=False)
            return failure.retry_seconds
        self._note(attempts, kept=True)
        return None

    def _note(self, attempts: int, *, kept: bool) -> None:
        if attempts and time.monotonic() > self._counts_from:
            self.kept += kept
            self.broken += not kept
