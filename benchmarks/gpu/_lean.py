"""A client that costs little CPU time, and so shows the server's share of a time: StreamGenerate on libnghttp2."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from ngh2 import Connection, DataReceived, ResponseReceived, Role, StreamClosed, TrailersReceived

from _records import Order, Record, checked
from _shape import prompt_text
from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from doherty.v1.request_pb2 import GenerateRequest, Sampling, Stopping

_PREFIX_BYTES = 5
"""Before each message: whether it is compressed, and its length in 4 bytes."""
_WINDOW_BYTES = 1 << 24


@dataclass(slots=True)
class _Call:
    record: Record
    ended: asyncio.Future[None]
    count: int = 0
    received: bytearray = field(default_factory=bytearray)
    status: dict[bytes, bytes] = field(default_factory=dict)

    def read(self, data: bytes, now: float) -> None:
        """Takes the complete messages out of what has been received."""
        self.received += data
        while len(self.received) >= _PREFIX_BYTES:
            end = _PREFIX_BYTES + int.from_bytes(self.received[1:_PREFIX_BYTES])
            if len(self.received) < end:
                return
            message = StreamGenerateResponse.FromString(bytes(self.received[_PREFIX_BYTES:end]))
            del self.received[:end]
            if message.delta.token_count:
                self.record.arrivals.append(now)
                self.count += message.delta.token_count


class _Client(asyncio.Protocol):
    """One connection for all streams."""

    def __init__(self, authority: str) -> None:
        self._headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/doherty.v1.GenerationService/StreamGenerate"),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]
        self._session = Connection(Role.CLIENT)
        self._session.initiate_connection()
        self._session.set_local_window_size(_WINDOW_BYTES)
        self._calls: dict[int, _Call] = {}
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._session.receive_data(data)
        now = perf_counter()
        for event in self._session.events():
            call = self._calls.get(getattr(event, "stream_id", 0))
            if call is None:
                continue
            if isinstance(event, DataReceived):
                call.read(event.data, now)
            elif isinstance(event, ResponseReceived | TrailersReceived):
                call.status.update((bytes(name), bytes(value)) for name, value, *_ in event.headers)
            elif isinstance(event, StreamClosed):
                call.ended.set_result(None)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        for call in self._calls.values():
            if not call.ended.done():
                call.ended.set_exception(exc or ConnectionError("the server closed the connection"))

    async def call(self, request: bytes) -> _Call:
        """Makes a call, and waits for its end.

        Raises:
            RuntimeError: its status is not OK.
            ConnectionError: the connection was lost.
        """
        call = _Call(Record(perf_counter()), asyncio.get_running_loop().create_future())
        stream = self._session.send_request(self._headers, end_stream=False)
        self._calls[stream] = call
        self._session.send_data(stream, b"\0" + len(request).to_bytes(4) + request, end_stream=True)
        self._flush()
        try:
            await call.ended
        finally:
            del self._calls[stream]
        if call.status.get(b"grpc-status") != b"0":
            raise RuntimeError(f"the call ended with {call.status}")
        return call

    def _flush(self) -> None:
        if data := self._session.data_to_send():
            self._transport.write(data)


@asynccontextmanager
async def connect(order: Order) -> AsyncIterator[Any]:
    """Connects to our server, on either transport."""
    host, _, port = order.target.partition(":")
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(lambda: _Client(order.target), host, int(port))

    async def ask(prompt: list[int], seed: int, tokens: int) -> Record:
        request = GenerateRequest(
            raw_text=prompt_text(prompt),
            sampling=Sampling(temperature=order.temperature, top_p=order.top_p, seed=seed),
            stopping=Stopping(max_output_tokens=tokens, ignore_eos=True),
        )
        call = await client.call(request.SerializeToString())
        return checked(call.record, call.count, tokens)

    try:
        yield ask
    finally:
        transport.close()
