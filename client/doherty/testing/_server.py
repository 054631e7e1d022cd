"""The fake server."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc
from google.protobuf.descriptor import Descriptor

from doherty._core._deployment import Latency, Limits, ModelInfo
from doherty._core._errors import RpcError
from doherty._core._health import Health
from doherty._core._prompt import RawText, TokenIds
from doherty._version import __version__
from doherty.testing._calls import Calls
from doherty.testing._request import Request
from doherty.testing._script import Replies, Script, words
from doherty.testing._servicers import Generation, LatencyService, health_handler
from doherty.v1.generation_service_pb2_grpc import add_GenerationServiceServicer_to_server
from doherty.v1.latency_service_pb2_grpc import add_LatencyServiceServicer_to_server
from doherty.v1.request_pb2 import GenerateRequest

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_THREADS: Final = 1000
"""The most calls at a time; further ones wait. A thread is made when a call needs it."""

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    # As our server: the SDK pings a connection that is silent for 20 s.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_GRACE_SECONDS: Final = 1.0

_CONTEXT_TOKENS: Final = 8192


class FakeServer:
    """A server in this process, which answers what a test scripts and keeps what it was asked.

    It serves from when it is made to `close`, which is the end of its `with` block. It changes nothing of what is
    scripted: `max_output_tokens`, stop texts and schemas are recorded and do not cut or check the reply. Only
    `continue_from` counts: of a reply that begins with the held part, what is behind it is sent.
    """

    def __init__(self, reply: Script | None = None) -> None:
        """Starts it, on a free port of loopback.

        Args:
            reply: What each request gets for which `reply` has added nothing. Without it, such a request fails with
                INTERNAL.

        Raises:
            TypeError: It is no reply.
        """
        self._replies = Replies(reply)
        self.requests = self._replies.requests
        """The requests for an answer, in the order in which they came."""
        self.count_requests: list[Request] = []
        """The requests to count tokens."""
        self.count_tokens: Callable[[Request], int] = count_words
        """Counts the tokens of a prompt: by default its words, without roles and templates."""
        self.model: ModelInfo | RpcError = _model()
        """What `client.model()` gets."""
        self.health = Health.SERVING
        """What `client.health()` and `client.wait_ready()` get."""
        self._latency: Latency | RpcError | None = None
        self._calls = Calls()
        self._started = monotonic()
        self._threads = ThreadPoolExecutor(_MOST_THREADS, "doherty-fake")
        self._grpc = grpc.server(self._threads, options=_OPTIONS)
        add_GenerationServiceServicer_to_server(Generation(self, self._replies, self._calls), self._grpc)
        add_LatencyServiceServicer_to_server(LatencyService(self), self._grpc)
        self._grpc.add_generic_rpc_handlers((health_handler(self),))
        self.target = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        """The address, as a client takes it."""
        self._grpc.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FakeServer({self.target!r})"

    def reply(self, *replies: Script) -> None:
        """Adds what the next requests get, one for each in the order in which they come.

        The client's retries and resumptions are requests, too.

        Raises:
            TypeError: One of them is no reply.
        """
        self._replies.add(replies)

    @property
    def latency(self) -> Latency | RpcError:
        """What `client.latency()` gets: by default how many answers run and have ended, and for how long it serves."""
        if self._latency is not None:
            return self._latency
        calls = self._calls
        seconds = monotonic() - self._started
        return Latency(window=seconds, answers=calls.answers, running=calls.running, uptime=seconds)

    @latency.setter
    def latency(self, latency: Latency | RpcError) -> None:
        self._latency = latency

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Returns when no answer is in progress: whatever a caller left has ended here, too.

        Raises:
            RuntimeError: An event loop runs in this thread: `await asyncio.to_thread(server.wait_idle)` there.
            TimeoutError: An answer is still in progress after so many seconds.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._calls.wait_idle(timeout)
        else:
            raise RuntimeError("wait_idle blocks the event loop: await asyncio.to_thread(server.wait_idle)")

    def close(self) -> None:
        """Dies: answers in progress are cut off, and its port is closed. A second time does nothing."""
        self._calls.close()
        self._grpc.stop(_GRACE_SECONDS).wait()
        self._threads.shutdown(wait=False)


def count_words(request: Request) -> int:
    """The size of a prompt in tokens, where a word is a token."""
    if isinstance(request.prompt, TokenIds):
        return len(request.prompt.ids)
    if isinstance(request.prompt, RawText):
        return len(words(request.prompt.text))
    return sum(len(words(message.content)) for message in request.messages)


def _model() -> ModelInfo:
    """A model that can do everything."""
    return ModelInfo(
        model="fake",
        engine="fake",
        server_version=__version__,
        features=_features(),
        limits=Limits(
            context_tokens=_CONTEXT_TOKENS,
            default_max_output_tokens=1024,
            vocabulary_size=2**31,
            max_top_logprobs=20,
            slots=_MOST_THREADS,
            max_queued_requests=_MOST_THREADS,
            max_message_bytes=64 * 1024 * 1024,
        ),
    )


def _features(message: Descriptor = GenerateRequest.DESCRIPTOR, prefix: str = "") -> tuple[str, ...]:
    """The paths of all fields of a request."""
    paths: list[str] = []
    for field in message.fields:
        name = prefix + field.name
        within = None if prefix or field.name == "messages" else field.message_type
        paths += _features(within, f"{name}.") if within else (name,)
    return tuple(sorted(paths))
