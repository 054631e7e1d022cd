"""Answers MultiplexGenerate with a handler for streams: each request has a thread, and a context like a call's."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

import grpc
from google.rpc.status_pb2 import Status

from doherty.v1 import generation_service_pb2 as wire

Handler = Callable[[Any, Any], Iterator[wire.StreamGenerateResponse]]


class _AbortedError(Exception):
    pass


class _LaneContext:
    """The methods of a call's context that handlers use."""

    def __init__(self, start: wire.MultiplexStart, rpc: grpc.ServicerContext) -> None:
        self.failure: Status | None = None
        self.gone = threading.Event()
        self._rpc = rpc
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._metadata = dict(rpc.invocation_metadata())
        if start.attempts:
            self._metadata["doherty-attempts"] = str(start.attempts)
        if start.HasField("trying_for"):
            self._metadata["doherty-trying-since-ms"] = str(start.trying_for.ToMilliseconds())
        if start.traceparent:
            self._metadata["traceparent"] = start.traceparent

    def invocation_metadata(self) -> Any:
        return self._metadata.items()

    def send_initial_metadata(self, metadata: Any) -> None:
        # The RPC has initial metadata only once, and the first lane sends it.
        with suppress(ValueError):
            self._rpc.send_initial_metadata(metadata)

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Does nothing, because a lane has no trailing metadata."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._lock:
            if self.gone.is_set():
                return False
            self._callbacks.append(callback)
            return True

    def cancel(self) -> None:
        with self._lock:
            self.gone.set()
        for callback in self._callbacks:
            callback()

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self.failure = Status(code=code.value[0], message=details)
        raise _AbortedError

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        packed: Any = dict(status.trailing_metadata or ())["grpc-status-details-bin"]
        self.failure = Status.FromString(packed)
        raise _AbortedError


class Lanes:
    """The requests of an RPC."""

    def __init__(self, handler: Handler, context: grpc.ServicerContext) -> None:
        self._handler = handler
        self._context = context
        self._parts: queue.Queue[wire.MultiplexPart | None] = queue.Queue()
        self._lanes: dict[int, _LaneContext] = {}
        context.add_callback(self._end)

    def run(self, messages: Iterator[wire.MultiplexGenerateRequest]) -> Iterator[wire.MultiplexGenerateResponse]:
        """Answers requests until the caller leaves."""
        threading.Thread(target=self._receive, args=(messages,), daemon=True).start()
        while (part := self._parts.get()) is not None:
            yield wire.MultiplexGenerateResponse(parts=[part])

    def _receive(self, messages: Iterator[wire.MultiplexGenerateRequest]) -> None:
        try:
            for message in messages:
                for start in message.starts:
                    lane = self._lanes[start.id] = _LaneContext(start, self._context)
                    threading.Thread(target=self._answer, args=(start, lane), daemon=True).start()
                for identifier in message.cancels:
                    self._lanes[identifier].cancel()
        except grpc.RpcError:
            self._end()  # the caller has left

    def _answer(self, start: wire.MultiplexStart, lane: _LaneContext) -> None:
        parts = self._handler(start.request, lane)
        if start.whole:
            parts = _joined(parts)
        try:
            for response in parts:
                if lane.gone.is_set():
                    return
                self._parts.put(wire.MultiplexPart(id=start.id, response=response))
                if response.HasField("summary"):
                    return
            self._parts.put(None)  # an answer is only ever cut off together with its RPC
        except _AbortedError:
            self._parts.put(wire.MultiplexPart(id=start.id, status=lane.failure))

    def _end(self) -> None:
        for lane in self._lanes.values():
            lane.cancel()
        self._parts.put(None)


def _joined(parts: Iterator[wire.StreamGenerateResponse]) -> Iterator[wire.StreamGenerateResponse]:
    whole = wire.StreamGenerateResponse()
    text = ""
    for part in parts:
        text += part.delta.text
        whole.MergeFrom(part)
    whole.delta.text = text
    yield whole
