"""If a server process was stopped for longer than its timeouts, it blames neither callers nor the engine."""

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import generation_service_pb2_grpc
from doherty.v1.request_pb2 import GenerateRequest
from support.multiplex import opened, start
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, request

PATIENCE = 12
"""The timeouts of the server, in seconds."""

SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 4}}
LONG: dict[str, Any] = {"prompt": "Count.", "stopping": {"max_output_tokens": 150, "ignore_eos": True}}
NARROW = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
"""The window of a caller that accepts a kilobyte, and then no more."""


def freeze(server: ServerProcess) -> None:
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(PATIENCE + 1)  # time must pass for the server's clock, and there is no event to wait for
    server.process.send_signal(signal.SIGCONT)
    server.wait_for("stood_still")


def assert_nothing_was_restarted(server: ServerProcess) -> None:
    assert server.stop() == 0
    events = [line["event"] for line in (*server.log, *server.read())]
    assert "engine_failed" not in events


def test_a_stopped_process_blames_no_caller_and_no_engine() -> None:
    patience = ("--step-timeout", "--receive-timeout", "--stall-timeout")
    flags = [part for flag in patience for part in (flag, str(PATIENCE))]
    engine = ("--engine", "synthetic", "-o", "prefill_seconds=1", "-o", "tokens_per_second=10000")
    with (
        start_server(*engine, *flags, "--canary-interval", "0.2") as server,
        grpc.insecure_channel(server.target, options=NARROW) as narrow,
        connect(server.target) as caller,
        opened(caller.stub) as idle,
    ):
        many_outputs = {
            **SHORT,
            "stopping": {"max_output_tokens": 2000, "ignore_eos": True},
            "output": {"top_logprobs": 20},
        }
        unread = generation_service_pb2_grpc.GenerationServiceStub(narrow).StreamGenerate(
            request(**many_outputs), timeout=SECONDS
        )
        caller.wait_until(lambda now: now.running == 1)
        next(unread)
        # The engine has generated the whole answer, of which the caller has read one message.
        caller.wait_until(lambda now: now.running == 0)
        late = threading.Event()
        generate: Any = caller.channel.stream_unary(
            "/doherty.v1.GenerationService/Generate",
            GenerateRequest.SerializeToString,
            wire.GenerateResponse.FromString,
        )
        idle.send(start(1, **SHORT))  # after the answer, the call has nothing to do
        idle.last(1)
        sending = generate.future(send_when(late), timeout=SECONDS)
        caller.wait_until(lambda now: now.running == 1)  # a canary; the previous call has begun
        freeze(server)
        late.set()
        idle.send(start(2, **SHORT))
        assert idle.last(2).response.summary.usage.output_tokens == 4
        assert sending.result().summary.usage.output_tokens == 4
        assert list(unread)[-1].summary.usage.output_tokens == 2000
        assert_nothing_was_restarted(server)


def send_when(ready: threading.Event) -> Iterator[GenerateRequest]:
    ready.wait(SECONDS)
    yield request(**SHORT)


@pytest.mark.model
def test_a_busy_engine_survives_a_stopped_process() -> None:
    with (
        start_server("--step-timeout", str(PATIENCE)) as server,
        connect(server.target) as caller,
    ):
        stream = caller.stub.StreamGenerate(request(**LONG), timeout=SECONDS)
        next(stream)
        freeze(server)
        assert list(stream)[-1].summary.usage.output_tokens == 150
        assert_nothing_was_restarted(server)
