"""What a load generator is asked for, and what it tells; the same for every side."""

import json
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """Requests that one generator makes, `streams` of them at a time, each as soon as another one has ended."""

    driver: str
    target: str
    streams: int
    requests: int
    tokens: int
    """How many tokens each answer has."""
    prompt_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    """Of the prompts, and of the answers where they are sampled."""
    questions: bool = False
    """Whether the prompts are the ten questions of the reference, as messages of a user, instead of random tokens."""


@dataclass(slots=True)
class Record:
    """One answer: when its request was made, and when each part of it that carries tokens came; in seconds."""

    begun: float
    arrivals: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Time to the first token."""
        return self.arrivals[0] - self.begun

    @property
    def last(self) -> float:
        """Time to the last token."""
        return self.arrivals[-1] - self.begun

    @property
    def gaps(self) -> list[float]:
        """The times between the parts."""
        return [later - earlier for earlier, later in zip(self.arrivals, self.arrivals[1:], strict=False)]


def checked(record: Record, count: int, tokens: int) -> Record:
    """The record of an answer that is as long as it was to be."""
    if count != tokens:
        raise RuntimeError(f"an answer has {count} tokens instead of {tokens}")
    return record


async def send(writer: StreamWriter, message: object) -> None:
    """Sends a message as a line of JSON."""
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


async def receive(reader: StreamReader) -> Any:
    """Receives a message.

    Raises:
        EOFError: the other side is gone.
    """
    line = await reader.readline()
    if not line:
        raise EOFError("the process has ended; its log says why")
    return json.loads(line)


def as_records(message: Any) -> list[Record]:
    """The records that were received.

    Raises:
        RuntimeError: the generator failed.
    """
    if "error" in message:
        raise RuntimeError(message["error"])
    return [Record(begun, arrivals) for begun, arrivals in message["records"]]
