"""The record of one request, from its arrival to its terminal status."""

import random
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from doherty.v1 import generation_service_pb2, latency_service_pb2
from doherty_engine import EngineRequest
from doherty_service.telemetry._causes import AbortCause

if TYPE_CHECKING:
    from doherty_service._call import Call
    from doherty_service.security import Caller

MULTIPLEX = "/doherty.v1.GenerationService/MultiplexGenerate"
"""The method whose RPCs carry many requests."""
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
"""All values of `RequestRecord.rpc`."""
ANSWERING_RPCS = tuple(sorted(_RPCS[method] for method in _ANSWERING))
"""The RPCs that generate answers."""
Metadata = Sequence[tuple[str, str | bytes]]
"""The metadata of a call, in gRPC's format."""


def new_key() -> str:
    """Returns a unique name for a request: 32 hexadecimal digits."""
    return f"{random.getrandbits(128):032x}"


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One RPC, or one request of a MultiplexGenerate: its caller, and a timestamp for each stage of its processing.

    All fields are assigned on the event loop. Points in time are `time.monotonic()`, durations are in seconds, and
    None means that something has not happened.
    """

    method: str
    """The full name, for example "/doherty.v1.GenerationService/Generate"."""
    key: str
    """The server's own unique name for this request."""
    request_id: str
    """The caller's label, or `key` if the caller sent none."""
    caller: "Caller"
    peer: str = ""
    """The caller's address, for example "ipv4:127.0.0.1:50000"."""
    is_unauthenticated: bool = False
    """Whether the server requires a key and the caller has not sent a valid one."""
    ends_at: float | None = None
    """The caller's deadline as `time.monotonic()`; None if there is none."""
    attempt: int = 1
    """The number of the caller's attempt at this request, as reported by the caller."""
    tried_for: float = 0.0
    """The seconds since the caller's first attempt at this request, as reported by the caller."""
    call: "Call | None" = None
    """The RPC, as its transport presents it; None for a request of a MultiplexGenerate."""
    carries_requests: bool = False
    """Whether this is a whole MultiplexGenerate, whose requests have their own records."""
    has_requests: bool = False
    """Whether a MultiplexGenerate has received a request."""
    received: float = field(default_factory=time.monotonic)
    queue: float | None = None
    preprocess: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    summarized: float | None = None
    """When the summary was handed to the transport."""
    prompt_tokens: int | None = None
    output_tokens: int = 0
    """Tokens generated for this request, without those of `continue_from`."""
    continued_tokens: int | None = None
    """Tokens of `continue_from`; None if it is not set or its number of tokens is not known."""
    gaps: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds between messages that carry tokens (ITL), sorted once the request has ended."""
    finish_reason: str | None = None
    abort_cause: AbortCause | None = None
    """Why the answer ended before it was complete."""
    cached_tokens: int | None = None
    """Input tokens that were still in the KV cache; None if the engine does not report them."""
    engine_time_to_first_token: float | None = None
    """The engine's own measurement; None if the engine has none."""
    ended: float | None = None
    """When it ended. Its end is reported a little later."""
    status: str = ""
    """The name of the terminal status, for example "OK"; empty until the call has ended."""
    reason: str = ""
    """The error reason that was sent to the caller, for example "QUEUE_FULL"."""
    model: str = ""
    """The id of the model, set once the request has been validated."""
    engine_request: EngineRequest | None = None
    """What the engine is to do, set once the request has been validated."""
    is_streamed: bool = False
    """Whether the answer is sent while it is generated."""
    trace: tuple[str, str] | None = None
    """The trace and span ids in hexadecimal, if the request is traced."""
    _spans: list[tuple[str, float]] | None = None
    """The result of `spans`, stored once the answer is complete."""
    _milliseconds: list[tuple[str, str]] | None = None
    """The result of `milliseconds`, stored in the same way."""
    span: Any = None
    """OpenTelemetry's span, if the request is traced."""
    rpc: str = field(init=False)
    """The name of the method, for example "Generate"; `OTHER_RPC` for methods outside of the contract."""
    is_answer: bool = field(init=False)
    """Whether this is a request for an answer. Latencies are recorded only for these."""

    def __post_init__(self) -> None:
        self.set_method(self.method)

    def set_method(self, method: str) -> None:
        """Sets the method, and what depends on it. That of a gateway's call is known once its request was read."""
        self.method = method
        self.rpc = _RPCS.get(method, OTHER_RPC)
        self.is_answer = method in _ANSWERING and not self.carries_requests

    def mark_started(self, prompt_tokens: int, preprocess: float, engine_queue: float) -> None:
        """Records that the engine has read the input."""
        self.prompt_tokens = prompt_tokens
        self.preprocess = preprocess
        self.queue = (self.queue or 0.0) + engine_queue

    def mark_tokens(self, count: int) -> None:
        """Records that `count` tokens are delivered to the transport now."""
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
        """Records that the answer is complete and its summary is handed to the transport now."""
        self.summarized = time.monotonic()
        self.finish_reason = finish_reason
        self.cached_tokens = cached_tokens
        self.engine_time_to_first_token = engine_time_to_first_token

    def time_left(self) -> float | None:
        """Returns the seconds until the caller's deadline, at least 0; None if there is no deadline."""
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
        """Seconds from the receive time until the summary was handed to the transport."""
        return None if self.summarized is None else self.summarized - self.received

    @property
    def log_fields(self) -> dict[str, object]:
        """The first fields of every log line about this request."""
        fields: dict[str, object] = {"request_id": self.request_id, "attempt": self.attempt}
        if self.continued_tokens is not None:
            fields["continued_tokens"] = self.continued_tokens
        if self.trace is not None:
            fields |= {"trace_id": self.trace[0], "span_id": self.trace[1]}
        return fields

    def elapsed(self) -> float:
        """Returns the seconds from the receive time until the end, or until now."""
        return (self.ended or time.monotonic()) - self.received

    def spans(self) -> list[tuple[str, float]]:
        """Returns the names and seconds of all known spans, in chronological order."""
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
        if self.summarized is not None:  # the spans no longer change
            self._spans = known
        return known

    def milliseconds(self) -> list[tuple[str, str]]:
        """Returns the spans in milliseconds, as text."""
        if self._milliseconds is not None:
            return self._milliseconds
        texts = [(name, f"{seconds * 1000:.3f}") for name, seconds in self.spans()]
        if self._spans is not None:
            self._milliseconds = texts
        return texts

    def server_timing(self) -> str:
        """Returns the value of the trailing metadata `server-timing`, in W3C Server-Timing syntax (milliseconds)."""
        return ", ".join([f"{name};dur={text}" for name, text in self.milliseconds()])
