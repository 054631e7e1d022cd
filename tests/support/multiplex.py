"""Makes a MultiplexGenerate call without the SDK."""

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from support.wire import SECONDS, Failure, failure_from, request


def start(
    identifier: int,
    *,
    whole: bool = False,
    timeout: float | None = None,
    attempts: int = 0,
    trying_for: int = 0,
    **fields: Any,
) -> wire.MultiplexStart:
    """Returns a request from its JSON form."""
    begun = wire.MultiplexStart(id=identifier, request=request(**fields), whole=whole, attempts=attempts)
    if trying_for:
        begun.trying_for.FromSeconds(trying_for)
    if timeout is not None:
        begun.timeout.FromNanoseconds(round(timeout * 1e9))
    return begun


def is_last(part: wire.MultiplexPart) -> bool:
    """Whether a part is the last one of a request."""
    return part.response.HasField("summary") or part.HasField("status")


def text_of(parts: Iterable[wire.MultiplexPart]) -> str:
    """Returns the text of an answer, or of the parts that have arrived so far."""
    return "".join(part.response.delta.text for part in parts)


def failure_in(part: wire.MultiplexPart) -> Failure:
    """Returns how a request failed, and checks that the error has all details that the contract promises."""
    assert part.HasField("status"), part
    return failure_from(part.status)


class Rpc:
    """A running RPC. Every message that it reads is checked against the contract."""

    def __init__(self, stub: GenerationServiceStub, **options: Any) -> None:
        """`options` are the parameters of the call, such as `timeout`."""
        self.messages: list[wire.MultiplexGenerateResponse] = []
        self._outgoing: queue.SimpleQueue[wire.MultiplexGenerateRequest | None] = queue.SimpleQueue()
        self.ended: set[int] = set()
        """The ids of requests whose last part has arrived."""
        self._begun: set[int] = set()
        self._seen: set[int] = set()
        self.call: Any = stub.MultiplexGenerate(iter(self._outgoing.get, None), **{"timeout": SECONDS, **options})

    def send(self, *starts: wire.MultiplexStart, cancels: Iterable[int] = ()) -> None:
        """Sends all requests in one message."""
        self._begun |= {begun.id for begun in starts}
        self._outgoing.put(wire.MultiplexGenerateRequest(starts=starts, cancels=cancels))

    def half_close(self) -> None:
        """Tells the server that there are no more requests."""
        self._outgoing.put(None)

    def read(self) -> wire.MultiplexGenerateResponse | None:
        """Returns the next message; None after the last one.

        Raises:
            grpc.RpcError: the RPC failed.
        """
        message: wire.MultiplexGenerateResponse | None = next(self.call, None)
        if message is not None:
            self._check(message)
            self.messages.append(message)
        return message

    def read_until(self, holds: Callable[[], object]) -> None:
        """Reads messages until a condition is true."""
        while not holds():
            assert self.read() is not None, f"the RPC ended before the condition became true: {self.messages}"

    def last(self, identifier: int) -> wire.MultiplexPart:
        """Reads until the last part of a request has arrived, and returns the part."""
        self.read_until(lambda: identifier in self.ended)
        return self.parts(identifier)[-1]

    def failure(self, identifier: int) -> Failure:
        """Waits until a request fails, and returns how."""
        return failure_in(self.last(identifier))

    def first(self, identifier: int) -> wire.MultiplexPart:
        """Reads until the first part of a request has arrived, and returns the part."""
        self.read_until(lambda: self.parts(identifier))
        return self.parts(identifier)[0]

    def rest(self) -> None:
        """Half-closes the RPC, and reads to its end."""
        self.half_close()
        while self.read() is not None:
            pass
        assert self.ended == self._begun

    def parts(self, identifier: int) -> list[wire.MultiplexPart]:
        """Returns the parts of a request that have arrived so far."""
        return [part for message in self.messages for part in message.parts if part.id == identifier]

    def _check(self, message: wire.MultiplexGenerateResponse) -> None:
        assert message.parts, "an empty message"
        identifiers = [part.id for part in message.parts]
        assert len(set(identifiers)) == len(identifiers), "several parts of a request in one message"
        assert not self.ended & set(identifiers), "a part after the last one"
        assert set(identifiers) <= self._begun
        for part in message.parts:
            if part.HasField("admission"):
                assert [field.name for field, _ in part.ListFields()] == ["id", "admission"]
                assert part.id not in self._seen
                continue
            assert part.HasField("response") is not part.HasField("status")
            assert part.HasField("status") or not part.HasField("timings")
            if part.HasField("response"):
                assert part.response.HasField("start") is (part.id not in self._seen)
                assert part.response.HasField("delta") or part.response.HasField("summary")
            else:
                assert part.status.code
        self._seen |= {part.id for part in message.parts if not part.HasField("admission")}
        self.ended |= {part.id for part in message.parts if is_last(part)}


@contextmanager
def opened(stub: GenerationServiceStub, **options: Any) -> Iterator[Rpc]:
    """Starts an RPC, and cancels it at the end of the block."""
    rpc = Rpc(stub, **options)
    try:
        yield rpc
    finally:
        rpc.half_close()  # ends the thread that sends
        rpc.call.cancel()


def wait_until(holds: Callable[[], object]) -> None:
    """Checks a condition again and again until it is true, because no event reports it."""
    ends_at = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < ends_at, f"the condition did not become true within {SECONDS} s"
