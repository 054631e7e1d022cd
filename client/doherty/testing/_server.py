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

_MAX_THREADS: Final = 1000
"""Maximum number of concurrent calls. Further calls wait. A thread is created when a call needs it."""

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    # The same as for our server, because the SDK pings a connection that is silent for 20 s.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_GRACE_SECONDS: Final = 1.0

_CONTEXT_TOKENS: Final = 8192


class FakeServer:
    """A server in this process that sends the replies of a test, and records the requests.

    It serves from its creation to `close`, which the end of its `with` block calls. It does not change replies:
    `max_output_tokens`, stop texts and schemas are recorded, but neither shorten nor check the reply. `continue_from`
    is the only exception: if a reply begins with the part that the caller has, only the rest is sent.
    """

    def __init__(self, reply: Script | None = None) -> None:
        """Starts the server on a free loopback port.

        Args:
            reply: The reply to each request for which the method `reply` has not added one. Without it, such a request
                fails with INTERNAL.

        Raises:
            TypeError: `reply` is not a reply.
        """
        self._replies = Replies(reply)
        self.requests = self._replies.requests
        """The received requests for an answer, in order."""
        self.count_requests: list[Request] = []
        """The received requests to count tokens, in order."""
        self.count_tokens: Callable[[Request], int] = count_words
        """Counts the tokens of a prompt. By default, these are its words, without roles and templates."""
        self.model: ModelInfo | RpcError = _model()
        """The result of `client.model()`."""
        self.health = Health.SERVING
        """The result of `client.health()`, which `client.wait_ready()` also uses."""
        self._latency: Latency | RpcError | None = None
        self._calls = Calls()
        self._started = monotonic()
        self._threads = ThreadPoolExecutor(_MAX_THREADS, "doherty-fake")
        self._grpc = grpc.server(self._threads, options=_OPTIONS)
        add_GenerationServiceServicer_to_server(Generation(self, self._replies, self._calls), self._grpc)
        add_LatencyServiceServicer_to_server(LatencyService(self), self._grpc)
        self._grpc.add_generic_rpc_handlers((health_handler(self),))
        self.target = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        """The address to pass to a client."""
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
        """Adds replies to the next requests, one per request, in the order in which the requests arrive.

        The client's retries and resumptions are requests, too.

        Raises:
            TypeError: One of them is not a reply.
        """
        self._replies.add(replies)

    @property
    def latency(self) -> Latency | RpcError:
        """The result of `client.latency()`: by default the numbers of running and ended answers, and the uptime."""
        if self._latency is not None:
            return self._latency
        calls = self._calls
        seconds = monotonic() - self._started
        return Latency(window=seconds, answers=calls.answers, running=calls.running, uptime=seconds)

    @latency.setter
    def latency(self, latency: Latency | RpcError) -> None:
        self._latency = latency

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Waits until no answer is in progress, including those whose caller has left.

        Raises:
            RuntimeError: An event loop runs in this thread. Use `await asyncio.to_thread(server.wait_idle)` there.
            TimeoutError: After `timeout` seconds, an answer is still in progress.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._calls.wait_idle(timeout)
        else:
            raise RuntimeError("wait_idle blocks the event loop: await asyncio.to_thread(server.wait_idle)")

    def close(self) -> None:
        """Cuts off the answers in progress, and closes the port, like a server that dies. It may be called twice."""
        self._calls.close()
        self._grpc.stop(_GRACE_SECONDS).wait()
        self._threads.shutdown(wait=False)


def count_words(request: Request) -> int:
    """Counts the tokens of a prompt. Each word is a token."""
    if isinstance(request.prompt, TokenIds):
        return len(request.prompt.ids)
    if isinstance(request.prompt, RawText):
        return len(words(request.prompt.text))
    return sum(len(words(message.content)) for message in request.messages)


def _model() -> ModelInfo:
    """Returns a model that supports every feature."""
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
            slots=_MAX_THREADS,
            max_queued_requests=_MAX_THREADS,
            max_message_bytes=64 * 1024 * 1024,
        ),
    )


def _features(message: Descriptor = GenerateRequest.DESCRIPTOR, prefix: str = "") -> tuple[str, ...]:
    """Returns the paths of all fields of a request."""
    paths: list[str] = []
    for field in message.fields:
        name = prefix + field.name
        within = None if prefix or field.name == "messages" else field.message_type
        paths += _features(within, f"{name}.") if within else (name,)
    return tuple(sorted(paths))
