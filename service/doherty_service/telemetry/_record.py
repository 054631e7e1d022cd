"""What the server notes of one request, from its arrival to its terminal status."""

import random
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc.aio

from doherty.v1 import generation_service_pb2, latency_service_pb2
from doherty_engine import EngineRequest
from doherty_service.telemetry._causes import AbortCause

if TYPE_CHECKING:
    from doherty_service.security import Caller

MULTIPLEX = "/doherty.v1.GenerationService/MultiplexGenerate"
"""The method whose RPCs carry requests."""
GENERATE = "/doherty.v1.GenerationService/Generate"
STREAM_GENERATE = "/doherty.v1.GenerationService/StreamGenerate"
_ANSWERING = frozenset({GENERATE, STREAM_GENERATE, MULTIPLEX})
_RPCS = {
    f"/{service.full_name}/{method.name}": method.name
    for file in (generation_service_pb2.DESCRIPTOR, latency_service_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
}
OTHER_RPC = "other"
"""Health checks, reflection and the like."""
RPCS = (*_RPCS.values(), OTHER_RPC)
"""Everything that `RequestRecord.rpc` can be."""
ANSWERING_RPCS = tuple(sorted(_RPCS[method] for method in _ANSWERING))
"""Those that ask for an answer."""
Metadata = Sequence[tuple[str, str | bytes]]
"""The headers of a call, as gRPC gives them."""


def new_key() -> str:
    """A unique name for a request: 32 hexadecimal digits."""
    return f"{random.getrandbits(128):032x}"


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One RPC, or one request of a MultiplexGenerate: who asks, and the marks that its way through the server leaves.

    All marks are plain assignments on the event loop. Times are seconds by `time.monotonic()`, durations are seconds,
    and what did not happen is None.
    """

    method: str
    """The full name, as "/doherty.v1.GenerationService/Generate"."""
    key: str
    """The server's own unique name for this request."""
    request_id: str
    """The caller's label, or the key where it gave none."""
    caller: "Caller"
    peer: str = ""
    """The caller's address, as "ipv4:127.0.0.1:50000"."""
    is_stranger: bool = False
    """Whether the caller should have shown a key and has not."""
    ends_at: float | None = None
    """The caller's deadline, by `time.monotonic()`; None where there is none."""
    attempt: int = 1
    """Which one of the caller's attempts at the same request this is, as it says itself."""
    tried_for: float = 0.0
    """For how many seconds the caller says that it has been trying, with the attempts before this one."""
    rpc_context: grpc.aio.ServicerContext[Any, Any] | None = None
    """gRPC's context of the RPC; None for a request of a MultiplexGenerate."""
    carries_requests: bool = False
    """Whether it is a MultiplexGenerate as a whole, whose requests have records of their own."""
    has_requests: bool = False
    """Whether one of these has come."""
    received: float = field(default_factory=time.monotonic)
    queue: float | None = None
    preprocess: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    summarized: float | None = None
    """When the summary was handed to the transport."""
    prompt_tokens: int | None = None
    output_tokens: int = 0
    """Generated for this request."""
    continued_tokens: int | None = None
    """Of the held part that the answer goes on from; None where there is none, or it is not known."""
    gaps: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds between messages that carry tokens (ITL); sorted once the request has ended."""
    finish_reason: str | None = None
    abort_cause: AbortCause | None = None
    """Why the answer ended before it was complete."""
    cached_tokens: int | None = None
    """How many of those that the model had to read were still in the KV cache; None where the engine does not tell."""
    engine_time_to_first_token: float | None = None
    """As the engine itself measured it, where it does."""
    status: str = ""
    """The name of the terminal status, as "OK", once the call has ended."""
    reason: str = ""
    """The reason that the caller was told with an error, as "QUEUE_FULL"."""
    model: str = ""
    """The id of the model that answers, once the request is found to be valid."""
    asked: EngineRequest | None = None
    """The request, once it is found to be valid."""
    is_streamed: bool = False
    """Whether the answer is sent while it comes into being."""
    trace: tuple[str, str] | None = None
    """The trace and span ids in hexadecimal digits, where the request is traced."""
    _spans: list[tuple[str, float]] | None = None
    """What `spans` returns, once the answer is complete and none of it changes."""
    span: Any = None
    """OpenTelemetry's span, where the request is traced."""

    def mark_started(self, prompt_tokens: int, preprocess: float, engine_queue: float) -> None:
        """The engine has read the input."""
        self.prompt_tokens = prompt_tokens
        self.preprocess = preprocess
        self.queue = (self.queue or 0.0) + engine_queue

    def mark_tokens(self, count: int) -> None:
        """`count` tokens are delivered to the transport now."""
        now = time.monotonic()
        if self.last_token is None:
            self.first_token = now
        else:
            self.gaps.append(now - self.last_token)
        self.last_token = now
        self.output_tokens += count

    def mark_summary(
        self, finish_reason: str, cached_tokens: int | None = None, engine_time_to_first_token: float | None = None
    ) -> None:
        """The answer is complete, and its summary is handed to the transport now."""
        self.summarized = time.monotonic()
        self.finish_reason = finish_reason
        self.cached_tokens = cached_tokens
        self.engine_time_to_first_token = engine_time_to_first_token

    def time_left(self) -> float | None:
        """Seconds until the caller's deadline, at least 0; None where there is none."""
        return None if self.ends_at is None else max(0.0, self.ends_at - time.monotonic())

    @property
    def time_to_first_token(self) -> float | None:
        """TTFT in seconds."""
        return None if self.first_token is None else self.first_token - self.received

    @property
    def time_to_last_token(self) -> float | None:
        """TTLT in seconds."""
        return None if self.last_token is None else self.last_token - self.received

    @property
    def time_per_output_token(self) -> float | None:
        """TPOT in seconds; None for fewer than two tokens."""
        if self.first_token is None or self.last_token is None or self.output_tokens < 2:  # noqa: PLR2004 - by definition
            return None
        return (self.last_token - self.first_token) / (self.output_tokens - 1)

    @property
    def total(self) -> float | None:
        """Seconds until the summary was handed to the transport."""
        return None if self.summarized is None else self.summarized - self.received

    @property
    def rpc(self) -> str:
        """The method's name within the contract, as "Generate"; `OTHER_RPC` for all others."""
        return _RPCS.get(self.method, OTHER_RPC)

    @property
    def is_answer(self) -> bool:
        """Whether it asks for an answer: only these are recorded and counted."""
        return self.method in _ANSWERING and not self.carries_requests

    @property
    def names(self) -> dict[str, object]:
        """What every log line about this request begins with."""
        names: dict[str, object] = {"request_id": self.request_id, "attempt": self.attempt}
        if self.continued_tokens is not None:
            names["continued_tokens"] = self.continued_tokens
        if self.trace is not None:
            names |= {"trace_id": self.trace[0], "span_id": self.trace[1]}
        return names

    def elapsed(self) -> float:
        """Seconds since the receive time."""
        return time.monotonic() - self.received

    def spans(self) -> list[tuple[str, float]]:
        """The names and seconds of what is known, in the order in which it happens."""
        if self._spans is not None:
            return self._spans
        known: list[tuple[str, float]] = []
        received, first, last = self.received, self.first_token, self.last_token
        if self.preprocess is not None:
            known.append(("preprocess", self.preprocess))
        if self.queue is not None:
            known.append(("queue", self.queue))
        if first is not None and last is not None:
            known.append(("time_to_first_token", first - received))
            known.append(("time_to_last_token", last - received))
        if self.summarized is not None:
            known.append(("total", self.summarized - received))
        if (per_token := self.time_per_output_token) is not None:
            known.append(("time_per_output_token", per_token))
        if self.summarized is not None:  # nothing changes any more
            self._spans = known
        return known

    def server_timing(self) -> str:
        """The value of the trailing metadata `server-timing`, in the syntax of W3C Server-Timing (milliseconds)."""
        return ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in self.spans())
