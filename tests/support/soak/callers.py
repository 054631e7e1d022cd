"""Callers of every kind: callers that read, leave early, stop reading, or send senseless data."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio

from doherty.v1 import generation_service_pb2_grpc
from doherty.v1.generation_service_pb2 import CountTokensRequest
from doherty.v1.request_pb2 import GenerateRequest
from support.wire import request

NARROW = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
OWN = [("grpc.use_local_subchannel_pool", 1)]
PATIENCE = 20.0
PATHS = (
    "/doherty.v1.GenerationService/Generate",
    "/doherty.v1.GenerationService/StreamGenerate",
    "/doherty.v1.GenerationService/CountTokens",
    "/doherty.v1.LatencyService/GetLatency",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/no.such.Service/Method",
)


class Crowd:
    """Callers of a server that uses TLS and API keys. Counts how their calls end."""

    def __init__(self, target: str, roots: bytes, other_roots: bytes, token: str, seed: int) -> None:
        """Makes all random choices from `seed`."""
        self.ends: Counter[str] = Counter()
        self._target = target
        self._right = grpc.ssl_channel_credentials(roots)
        self._wrong = grpc.ssl_channel_credentials(other_roots)
        self._key = (("authorization", f"Bearer {token}"),)
        self._draw = random.Random(seed)  # noqa: S311 - the choices must be repeatable
        self._shared: list[grpc.aio.Channel] = []
        self._kinds: dict[Callable[[], Awaitable[None]], int] = {
            self.reads: 10,
            self.asks_at_once: 6,
            self.counts: 3,
            self.cancels: 20,
            self.is_late: 8,
            self.limits: 4,
            self.hangs_up: 6,
            self.stalls: 6,
            self.sends_noise: 8,
            self.sends_no_http: 4,
            self.watches: 3,
            self.sends_too_much: 1,
            self.has_no_key: 6,
            self.trusts_another: 2,
            self.speaks_in_the_clear: 2,
        }

    async def come(self, streams: int, seconds: float) -> None:
        """Keeps a number of callers active for some seconds."""
        self._shared = [grpc.aio.secure_channel(self._target, self._right, OWN) for _ in range(4)]
        ends_at = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(streams):
                    group.create_task(self._keep_coming(ends_at))
        finally:
            for channel in self._shared:
                await channel.close()

    async def _keep_coming(self, ends_at: float) -> None:
        while asyncio.get_running_loop().time() < ends_at:
            (kind,) = self._draw.choices(list(self._kinds), weights=list(self._kinds.values()))
            end = "as meant"
            try:
                await kind()
            except grpc.aio.AioRpcError as error:
                end = error.code().name
            self.ends[f"{kind.__name__}: {end}"] += 1

    def _request(self, **fields: Any) -> GenerateRequest:
        tokens = self._draw.randint(1, 120)
        logprobs = {"top_logprobs": 2} if self._draw.random() < 0.3 else {}
        stopping = {"max_output_tokens": tokens, "ignore_eos": True, **fields.pop("stopping", {})}
        return request(prompt="word " * self._draw.randint(1, 60), stopping=stopping, output=logprobs, **fields)

    def _stream(
        self, asked: GenerateRequest, channel: grpc.aio.Channel | None = None, timeout: float = PATIENCE
    ) -> Any:
        stub: Any = generation_service_pb2_grpc.GenerationServiceStub(channel or self._draw.choice(self._shared))
        return stub.StreamGenerate(asked, timeout=timeout, metadata=self._key)

    @asynccontextmanager
    async def _own(self, credentials: Any, options: Any = ()) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.secure_channel(self._target, credentials, [*OWN, *options]) as channel:
            yield channel

    async def reads(self) -> None:
        """Reads a complete answer."""
        async for _ in self._stream(self._request()):
            pass

    async def asks_at_once(self) -> None:
        """Makes a unary call."""
        stub: Any = generation_service_pb2_grpc.GenerationServiceStub(self._draw.choice(self._shared))
        await stub.Generate(self._request(), timeout=PATIENCE, metadata=self._key)

    async def counts(self) -> None:
        """Counts tokens."""
        stub: Any = generation_service_pb2_grpc.GenerationServiceStub(self._draw.choice(self._shared))
        await stub.CountTokens(CountTokensRequest(prompt="word " * 50), timeout=PATIENCE, metadata=self._key)

    async def cancels(self) -> None:
        """Cancels after some messages, or before the first one."""
        call = self._stream(self._request())
        for _ in range(self._draw.randint(0, 30)):
            if await call.read() is grpc.aio.EOF:
                break
        call.cancel()

    async def is_late(self) -> None:
        """Uses a deadline that most answers exceed."""
        async for _ in self._stream(self._request(), timeout=self._draw.uniform(0.001, 0.3)):
            pass

    async def limits(self) -> None:
        """Sets a time limit, and accepts a partial answer."""
        async for _ in self._stream(self._request(stopping={"time_limit": f"{self._draw.uniform(0.001, 0.3):.3f}s"})):
            pass

    async def hangs_up(self) -> None:
        """Closes the connection in the middle of an answer."""
        async with self._own(self._right) as channel:
            call = self._stream(self._request(), channel)
            await call.read()

    async def stalls(self) -> None:
        """Stops reading, for longer or shorter than the server tolerates."""
        wordy = request(
            prompt="a", stopping={"max_output_tokens": 4000, "ignore_eos": True}, output={"top_logprobs": 5}
        )
        async with self._own(self._right, NARROW) as channel:
            call = self._stream(wordy, channel)
            await call.read()
            await asyncio.sleep(self._draw.uniform(0.1, 4))
            await call.read()

    async def sends_noise(self) -> None:
        """Sends bytes that are not a message, or a call of a method that does not exist."""
        data = self._draw.randbytes(self._draw.choice([0, 3, 30, 300, 30_000]))
        method: Any = self._draw.choice(self._shared).unary_stream(self._draw.choice(PATHS))
        async for _ in method(data, timeout=PATIENCE, metadata=self._key):
            pass

    async def sends_no_http(self) -> None:
        """Opens a connection, sends random bytes or nothing, and leaves."""
        host, _, port = self._target.rpartition(":")
        with suppress(OSError):  # the server may close the connection first
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(self._draw.randbytes(self._draw.choice([0, 10, 1000])))
            await asyncio.sleep(self._draw.uniform(0, 0.5))
            writer.transport.abort()

    async def watches(self) -> None:
        """Watches the health service for a while."""
        watch: Any = self._draw.choice(self._shared).unary_stream("/grpc.health.v1.Health/Watch")
        call = watch(b"", metadata=self._key)
        await call.read()
        await asyncio.sleep(self._draw.uniform(0, 1))
        call.cancel()

    async def sends_too_much(self) -> None:
        """Sends a message that is larger than the server accepts."""
        async for _ in self._stream(request(prompt="x" * (5 << 20))):
            pass

    async def has_no_key(self) -> None:
        """Uses an invalid key."""
        method: Any = self._draw.choice(self._shared).unary_stream(self._draw.choice(PATHS[:4]))
        async for _ in method(b"", timeout=PATIENCE, metadata=(("authorization", "Bearer dh_no_such"),)):
            pass

    async def trusts_another(self) -> None:
        """Does not trust the server's certificate."""
        async with self._own(self._wrong) as channel:
            await self._stream(self._request(), channel, timeout=1).read()

    async def speaks_in_the_clear(self) -> None:
        """Does not use TLS."""
        async with grpc.aio.insecure_channel(self._target, OWN) as channel:
            await self._stream(self._request(), channel, timeout=1).read()
