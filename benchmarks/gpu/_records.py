"""The messages to and from load generators, the same for every server."""

import json
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """The requests of one generator: `streams` at a time, each started as soon as another one has ended."""

    driver: str
    target: str
    streams: int
    requests: int
    tokens: int
    """The number of tokens of each answer."""
    prompt_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    """The seed of the prompts, and of sampled answers."""
    questions: bool = False
    """Whether the prompts are the ten questions of the reference, as messages of a user, instead of random tokens."""


@dataclass(slots=True)
class Record:
    """The times of one answer in seconds: of its request, and of the arrival of each part that has tokens."""

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
    """Returns the record, and checks that the answer has the requested length."""
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
        EOFError: The connection was closed.
    """
    line = await reader.readline()
    if not line:
        raise EOFError("the process has ended; its log says why")
    return json.loads(line)


def as_records(message: Any) -> list[Record]:
    """Returns the received records.

    Raises:
        RuntimeError: The generator failed.
    """
    if "error" in message:
        raise RuntimeError(message["error"])
    return [Record(begun, arrivals) for begun, arrivals in message["records"]]
