"""One MultiplexGenerate as a caller without the SDK drives it."""

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from support.wire import SECONDS, Failure, request


def start(
    identifier: int,
    *,
    whole: bool = False,
    timeout: float | None = None,
    attempts: int = 0,
    trying_for: int = 0,
    **fields: Any,
) -> wire.MultiplexStart:
    """A request from its JSON form."""
    begun = wire.MultiplexStart(id=identifier, request=request(**fields), whole=whole, attempts=attempts)
    if trying_for:
        begun.trying_for.FromSeconds(trying_for)
    if timeout is not None:
        begun.timeout.FromNanoseconds(round(timeout * 1e9))
    return begun


def is_last(part: wire.MultiplexPart) -> bool:
    """Whether a request ends with a part."""
    return part.response.HasField("summary") or part.HasField("status")


def text_of(parts: Iterable[wire.MultiplexPart]) -> str:
    """The text of an answer, or of what there is of it."""
    return "".join(part.response.delta.text for part in parts)


def failure_in(part: wire.MultiplexPart) -> Failure:
    """How a request failed, with every detail that the contract promises."""
    assert part.HasField("status"), part
    found: dict[str, Any] = {}
    for detail in part.status.details:
        for kind in ("ErrorInfo", "RequestInfo", "BadRequest", "RetryInfo"):
            message = getattr(error_details_pb2, kind)()
            if detail.Unpack(message):
                found[kind] = message
    retry: Duration | None = found["RetryInfo"].retry_delay if "RetryInfo" in found else None
    return Failure(
        code=next(code for code in grpc.StatusCode if code.value[0] == part.status.code),
        message=part.status.message,
        reason=found["ErrorInfo"].reason,
        domain=found["ErrorInfo"].domain,
        request_id=found["RequestInfo"].request_id,
        fields=[violation.field for violation in found["BadRequest"].field_violations] if "BadRequest" in found else [],
        retry_seconds=None if retry is None else retry.ToNanoseconds() / 1e9,
    )


class Rpc:
    """An RPC under way: what was read of it is held against what the contract promises of every message."""

    def __init__(self, stub: GenerationServiceStub, **options: Any) -> None:
        """`options` are those of the call."""
        self.messages: list[wire.MultiplexGenerateResponse] = []
        self._outgoing: queue.SimpleQueue[wire.MultiplexGenerateRequest | None] = queue.SimpleQueue()
        self.ended: set[int] = set()
        """The requests whose last part has come."""
        self._begun: set[int] = set()
        self._seen: set[int] = set()
        self.call: Any = stub.MultiplexGenerate(iter(self._outgoing.get, None), **{"timeout": SECONDS, **options})

    def send(self, *starts: wire.MultiplexStart, cancels: Iterable[int] = ()) -> None:
        """Sends all in one message."""
        self._begun |= {one.id for one in starts}
        self._outgoing.put(wire.MultiplexGenerateRequest(starts=starts, cancels=cancels))

    def half_close(self) -> None:
        """There are no more requests."""
        self._outgoing.put(None)

    def read(self) -> wire.MultiplexGenerateResponse | None:
        """Waits for the next message, None behind the last.

        Raises:
            grpc.RpcError: the RPC failed.
        """
        message: wire.MultiplexGenerateResponse | None = next(self.call, None)
        if message is not None:
            self._check(message)
            self.messages.append(message)
        return message

    def read_until(self, holds: Callable[[], object]) -> None:
        """Reads until something holds."""
        while not holds():
            assert self.read() is not None, f"it never came to be: {self.messages}"

    def last(self, identifier: int) -> wire.MultiplexPart:
        """Waits for the last part of a request."""
        self.read_until(lambda: identifier in self.ended)
        return self.parts(identifier)[-1]

    def failure(self, identifier: int) -> Failure:
        """Waits until a request fails."""
        return failure_in(self.last(identifier))

    def first(self, identifier: int) -> wire.MultiplexPart:
        """Waits for the first part of a request."""
        self.read_until(lambda: self.parts(identifier))
        return self.parts(identifier)[0]

    def rest(self) -> None:
        """Has no more requests, and reads to the end."""
        self.half_close()
        while self.read() is not None:
            pass
        assert self.ended == self._begun

    def parts(self, identifier: int) -> list[wire.MultiplexPart]:
        """What has come of a request."""
        return [part for message in self.messages for part in message.parts if part.id == identifier]

    def _check(self, message: wire.MultiplexGenerateResponse) -> None:
        assert message.parts, "an empty message"
        identifiers = [part.id for part in message.parts]
        assert len(set(identifiers)) == len(identifiers), "several parts of a request in one message"
        assert not self.ended & set(identifiers), "a part behind the last"
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
    """An RPC that is gone at the end of the block."""
    rpc = Rpc(stub, **options)
    try:
        yield rpc
    finally:
        rpc.half_close()  # ends the thread that sends
        rpc.call.cancel()


def wait_until(holds: Callable[[], object]) -> None:
    """Looks until something holds that nobody tells of."""
    ends_at = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < ends_at, "it never came to be"
