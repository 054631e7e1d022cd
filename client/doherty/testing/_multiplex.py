"""The requests of one MultiplexGenerate."""

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING

import grpc

from doherty._core._errors import CancelledByServerError
from doherty._core._results import ReplyMetadata
from doherty.testing._answer import Admit, CutOffError, joined
from doherty.testing._to_wire import as_rpc_error, fill, status_of
from doherty.v1.generation_service_pb2 import (
    Admission,
    MultiplexGenerateRequest,
    MultiplexGenerateResponse,
    MultiplexPart,
    MultiplexStart,
    StreamGenerateResponse,
)

if TYPE_CHECKING:
    from doherty.testing._calls import Calls

Play = Callable[[MultiplexStart, threading.Event, Admit], Iterator[StreamGenerateResponse]]
"""Makes the messages that answer a request, until the event is set."""


class MultiplexedCalls:
    """Answers each request in its own thread. The RPC ends when the caller sends no more and all requests are over."""

    def __init__(self, play: Play, calls: "Calls", *, tells_admission: bool) -> None:
        """`tells_admission` is whether the caller wants to know when requests are admitted."""
        self._play = play
        self._calls = calls
        self._tells_admission = tells_admission
        self._parts: SimpleQueue[MultiplexPart | CutOffError | None] = SimpleQueue()
        self._lock = threading.Lock()  # protects the attributes below
        self._running: dict[int, threading.Event] = {}
        self._cancelled: set[int] = set()
        self._left = 1
        """The requests that have not ended, and the caller while it may send more of them."""
        self._is_cut_off = False

    def responses(self, messages: Iterator[MultiplexGenerateRequest]) -> Iterator[MultiplexGenerateResponse]:
        """Yields the messages to send.

        Raises:
            CutOffError: The RPC is cut off.
        """
        threading.Thread(target=self._read, args=(messages,), daemon=True).start()
        while (part := self._parts.get()) is not None:
            if isinstance(part, CutOffError):
                raise part
            yield MultiplexGenerateResponse(parts=[part])

    def cut_off(self) -> None:
        """Ends the RPC and its requests."""
        with self._lock:
            self._is_cut_off = True
            for ended in self._running.values():
                ended.set()
        self._parts.put(CutOffError())

    def _read(self, messages: Iterator[MultiplexGenerateRequest]) -> None:
        try:
            for message in messages:
                for start in message.starts:
                    self._begin(start)
                for identifier in message.cancels:
                    self._cancel(identifier)
        except grpc.RpcError:
            self.cut_off()  # the caller has left
        finally:
            self._end_one()

    def _begin(self, start: MultiplexStart) -> None:
        ended = self._calls.begin()
        with self._lock:
            self._left += 1
            self._running[start.id] = ended
            if self._is_cut_off:
                ended.set()
        threading.Thread(target=self._answer, args=(start, ended), daemon=True).start()

    def _cancel(self, identifier: int) -> None:
        with self._lock:
            if (ended := self._running.get(identifier)) is not None:
                self._cancelled.add(identifier)
                ended.set()

    def _answer(self, start: MultiplexStart, ended: threading.Event) -> None:
        def admit(request_id: str, _: ReplyMetadata) -> None:
            if self._tells_admission and not start.whole:
                self._parts.put(MultiplexPart(id=start.id, admission=Admission(request_id=request_id)))

        try:
            messages = self._play(start, ended, admit)
            for message in (joined(messages),) if start.whole else messages:
                self._parts.put(MultiplexPart(id=start.id, response=message))
        except CutOffError as cut_off:
            cancelled = start.id in self._cancelled
            self._parts.put(_failed(start, _CANCELLED) if cancelled else cut_off)
        except Exception as error:  # noqa: BLE001 - the caller gets the error of a test's function
            self._parts.put(_failed(start, error))
        finally:
            self._calls.end(ended)
            self._end_one(start.id)

    def _end_one(self, identifier: int | None = None) -> None:
        with self._lock:
            if identifier is not None:
                del self._running[identifier]
            self._left -= 1
            if not self._left:
                self._parts.put(None)


_CANCELLED = CancelledByServerError("the caller cancelled the request", reason="CANCELLED")


def _failed(start: MultiplexStart, error: Exception) -> MultiplexPart:
    known = as_rpc_error(error)
    part = MultiplexPart(id=start.id, status=status_of(known, start.request.request_id))
    if known.timings is not None:
        fill(part.timings, known.timings)
    return part
