"""The ways in which a request can end early, as context managers: entering one starts a request, leaving it ends it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import grpc

from doherty.v1 import answer_pb2
from doherty.v1.request_pb2 import GenerateRequest
from support.proxy import Proxy, proxy
from support.wire import SECONDS, Caller, connect

UNARY, STREAM = "Generate", "StreamGenerate"

SOON = 1.5
"""The seconds after which a deadline or a time limit ends a request."""

Ending = Callable[[str, str, GenerateRequest], AbstractContextManager[None]]
"""The parameters are the server's address, the method and the request."""

_CALLER = """
import sys, grpc
target, method = sys.argv[1], "/doherty.v1.GenerationService/" + sys.argv[2]
with grpc.insecure_channel(target) as channel:
    call = channel.unary_stream if method.endswith("/StreamGenerate") else channel.unary_unary
    for _ in call(method)(sys.stdin.buffer.read()):
        pass
"""


def begin(caller: Caller, method: str, request: GenerateRequest, timeout: float = SECONDS) -> Any:
    """Starts a call."""
    start: Any = caller.stub.Generate.future if method == UNARY else caller.stub.StreamGenerate
    return start(request, timeout=timeout)


def replies(call: Any, method: str) -> list[Any]:
    """Waits for a call, and returns its replies; the last one contains the summary."""
    return [call.result()] if method == UNARY else list(call)


@contextmanager
def cancelled(target: str, method: str, request: GenerateRequest) -> Iterator[None]:
    """The caller cancels."""
    with connect(target) as caller:
        call = begin(caller, method, request)
        yield
        call.cancel()


@contextmanager
def past_deadline(target: str, method: str, request: GenerateRequest) -> Iterator[None]:
    """The deadline of the caller passes."""
    with connect(target) as caller:
        call = begin(caller, method, request, SOON)
        yield
        with suppress(grpc.RpcError):
            replies(call, method)
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@contextmanager
def past_time_limit(target: str, method: str, request: GenerateRequest) -> Iterator[None]:
    """The time limit ends the answer. Only in this case does the caller receive an answer."""
    brief = GenerateRequest()
    brief.CopyFrom(request)
    brief.stopping.time_limit.FromMilliseconds(round(SOON * 1000))
    with connect(target) as caller:
        call = begin(caller, method, brief)
        yield
        assert replies(call, method)[-1].summary.finish_reason == answer_pb2.FINISH_REASON_TIME_LIMIT


@contextmanager
def killed(target: str, method: str, request: GenerateRequest) -> Iterator[None]:
    """The caller's process is killed with SIGKILL."""
    command = (sys.executable, "-c", _CALLER, target, method)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(request.SerializeToString())
        process.stdin.close()
        try:
            yield
        finally:
            process.kill()


def _cut(cut: Callable[[Proxy], object]) -> Ending:
    @contextmanager
    def ending(target: str, method: str, request: GenerateRequest) -> Iterator[None]:
        with proxy(target) as wire, connect(wire.target) as caller:
            call = begin(caller, method, request)
            yield
            cut(wire)
            with suppress(grpc.RpcError):
                replies(call, method)
            assert call.code() is grpc.StatusCode.UNAVAILABLE

    return ending


finished = _cut(Proxy.finish)
"""The connection is closed with FIN."""

reset = _cut(Proxy.reset)
"""The connection is closed with RST."""
