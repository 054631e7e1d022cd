"""Records what the engine of a server does, in a ring buffer in a memory-mapped file that the harness reads.

Every server of this benchmark, including the one in C++, writes it in the same way, so that it costs all of them the
same.
"""

import time
from collections.abc import Sequence
from enum import IntEnum
from mmap import mmap
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING

from doherty_engine import (
    AnswerPrefix,
    Conversation,
    Engine,
    EngineRequest,
    Health,
    Input,
    ModelInfo,
    RequestHandle,
    StepOutput,
)

if TYPE_CHECKING:
    from doherty_engine import StepSink

HEADER_BYTES = 16
"""The header: the number of records written so far, as 64 bits. The rest is unused."""
CAPACITY = 1 << 20
PROMPT = "Question "
"""The beginning of the load generator's prompts. The number of the stream follows."""

_RECORD = Struct("<dHHHH")
RECORD_BYTES = _RECORD.size
_LAST = HEADER_BYTES + (CAPACITY - 1) * RECORD_BYTES
_COUNT = Struct("<Q")


class Kind(IntEnum):
    """The kind of a record."""

    SUBMIT = 1
    """A request of the stream `number` reached the engine at `time`."""
    OUTPUT = 2
    """The stream `number` got `characters` of text for `tokens` tokens in the step whose record follows."""
    STEP = 3
    """The preceding outputs were delivered at `time`."""


class LoggedEngine:
    """Wraps an engine and records its work."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """Creates the file at `path` and writes to it."""
        self._engine = engine
        self._numbers: dict[str, int] = {}
        self._at = HEADER_BYTES
        self._count = 0
        with path.open("w+b") as file:
            file.truncate(HEADER_BYTES + CAPACITY * RECORD_BYTES)
            self._ring = mmap(file.fileno(), 0)

    async def start(self, sink: "StepSink") -> None:
        """Starts the engine."""
        ring, numbers, pack, kind = self._ring, self._numbers, _RECORD.pack_into, int(Kind.OUTPUT)

        def noting(outputs: Sequence[StepOutput]) -> None:
            at, count = self._at, self._count
            for output in outputs:
                number = numbers.get(output.key)
                if number is None:
                    continue  # a warm-up
                pack(ring, at, 0.0, number, len(output.text), output.token_count, kind)
                at = at + RECORD_BYTES if at < _LAST else HEADER_BYTES
                count += 1
                if output.is_last:
                    del numbers[output.key]
            self._at, self._count = at, count
            # The time is taken when all is noted: what the notes cost is no latency.
            self._put(time.monotonic(), 0, Kind.STEP)
            sink(outputs)

        await self._engine.start(noting)

    def submit(self, request: EngineRequest) -> RequestHandle:
        """Starts a request."""
        number = _number_of(request.input)
        if number is not None:
            self._numbers[request.key] = number
            self._put(time.monotonic(), number, Kind.SUBMIT)
        return self._engine.submit(request)

    async def count_tokens(self, content: Input | AnswerPrefix) -> int:
        """Counts the tokens of an input or of a prefix."""
        return await self._engine.count_tokens(content)

    def info(self) -> ModelInfo:
        """Describes the model."""
        return self._engine.info()

    def health(self) -> Health:
        """Returns the engine's health."""
        return self._engine.health()

    async def stop(self) -> None:
        """Stops the engine."""
        await self._engine.stop()

    def _put(self, when: float, number: int, kind: Kind) -> None:
        _RECORD.pack_into(self._ring, self._at, when, number, 0, 0, kind)
        self._at = self._at + RECORD_BYTES if self._at < _LAST else HEADER_BYTES
        self._count += 1
        _COUNT.pack_into(self._ring, 0, self._count)


def _number_of(content: Input) -> int | None:
    """Returns the number of the stream of a request; None if the request is not from the load generator."""
    if not isinstance(content, Conversation):
        return None
    text = content.messages[-1].content
    return int(text.removeprefix(PROMPT)) if text.startswith(PROMPT) else None
