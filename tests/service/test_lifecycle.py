"""The server from the start of its process to the end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty.v1 import generation_service_pb2_grpc
from doherty.v1.generation_service_pb2 import CountTokensRequest
from support.server import start_server
from support.wire import SECONDS, connect, failure_of, request

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LONG = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 60, "ignore_eos": True}}


def synthetic(*options: str) -> list[str]:
    return ["--engine", "synthetic", *(part for option in options for part in ("-o", option))]


def watch(channel: grpc.Channel) -> Iterator[int]:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for reply in stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS):
        yield reply.status


def test_health_follows_the_model_and_watch_stays_open() -> None:
    with (
        start_server(*synthetic("load_seconds=5"), until="listening") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        statuses = watch(channel)
        assert next(statuses) == NOT_SERVING
        assert next(statuses) == SERVING
        for service in ("doherty.v1.GenerationService", "doherty.v1.LatencyService"):
            stub: Any = health_pb2_grpc.HealthStub(channel)
            assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING
        server.process.send_signal(signal.SIGTERM)
        assert list(statuses) == [NOT_SERVING]  # and then it ends with OK
        assert server.wait() == 0


def test_requests_get_a_retry_time_while_the_model_loads() -> None:
    with start_server(*synthetic("load_seconds=60"), until="listening") as server:
        with grpc.insecure_channel(server.target) as channel:
            stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
            failure = failure_of(lambda: stub.Generate(request(**LONG, request_id="early"), timeout=SECONDS))
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "WARMING_UP")
        assert failure.request_id == "early"
        assert failure.retry_seconds is not None
        assert server.stop() == 0  # a signal during loading ends the process cleanly


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_running_requests_finish_and_new_ones_are_refused(number: signal.Signals) -> None:
    with (
        start_server(*synthetic("tokens_per_second=10")) as server,
        ThreadPoolExecutor(8) as pool,
        connect(server.target) as caller,
    ):
        answers = [pool.submit(caller.generate, **LONG) for _ in range(4)]
        streams = [pool.submit(caller.stream, **LONG) for _ in range(4)]
        caller.wait_until(lambda now: now.running == 8)
        server.process.send_signal(number)
        server.wait_for("draining")
        count = CountTokensRequest(prompt="a")
        for failure in (
            failure_of(lambda: caller.generate(**LONG)),
            failure_of(lambda: caller.stub.CountTokens(count, timeout=SECONDS)),
        ):
            assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
            assert failure.retry_seconds is not None
        assert all(answer.result().summary.usage.output_tokens == 60 for answer in answers)
        assert all(stream.result()[-1].summary.usage.output_tokens == 60 for stream in streams)
        assert server.wait() == 0


def test_requests_beyond_the_grace_period_are_ended() -> None:
    with (
        start_server(*synthetic("tokens_per_second=10", "slots=1"), "--drain-grace", "0.2") as server,
        ThreadPoolExecutor(8) as pool,
        connect(server.target) as caller,
    ):
        # One request runs, and the others wait behind it.
        failing = [pool.submit(failure_of, lambda: caller.generate(**LONG)) for _ in range(3)]
        caller.wait_until(lambda now: (now.running, now.queued) == (1, 2))
        assert server.stop() == 0
        for call in failing:
            assert (call.result().code, call.result().reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINED")


def test_requests_are_accepted_during_the_drain_delay() -> None:
    with (
        start_server(*synthetic(), "--drain-delay", "5") as server,
        connect(server.target) as caller,
    ):
        statuses = watch(caller.channel)
        assert next(statuses) == SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(statuses) == NOT_SERVING
        assert caller.generate(**LONG).summary.usage.output_tokens == 60
        server.wait_for("draining")
        assert server.wait() == 0


def test_a_second_signal_ends_running_requests() -> None:
    with (
        start_server(*synthetic("tokens_per_second=10"), "--drain-grace", "600") as server,
        ThreadPoolExecutor(1) as pool,
        connect(server.target) as caller,
    ):
        failing = pool.submit(failure_of, lambda: caller.generate(**LONG))
        caller.wait_until(lambda now: now.running == 1)
        server.process.send_signal(signal.SIGINT)
        server.wait_for("draining")
        assert server.stop(signal.SIGINT) == 0
        assert failing.result().reason == "DRAINED"


def test_a_caller_that_does_not_read_cannot_keep_the_server_alive() -> None:
    endless = {"prompt": "a", "stopping": {"max_output_tokens": 8000, "ignore_eos": True}}
    options = ("tokens_per_second=0", "slots=64")
    with start_server(*synthetic(*options), "--drain-grace", "0.2") as server:
        narrow = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
        with grpc.insecure_channel(server.target, options=narrow) as channel, connect(server.target) as caller:
            stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
            unread = [stub.StreamGenerate(request(**endless), timeout=SECONDS) for _ in range(64)]
            caller.wait_until(lambda now: now.running > 0)
            assert server.stop() == 0
            for stream in unread:
                stream.cancel()


def run_to_the_end(*flags: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOHERTY_")}
    command = [sys.executable, "-m", "doherty_service", *flags]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS, env=environment)


def assert_one_sentence(ended: "subprocess.CompletedProcess[str]", *words: str) -> None:
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    sentences = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(sentences) == 1
    assert all(word in sentences[0] for word in words)


def test_two_servers_cannot_share_a_port() -> None:
    with start_server(*synthetic()) as server:
        assert_one_sentence(run_to_the_end(*synthetic(), "--listen", server.target), server.target)


def test_a_port_of_another_program_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert_one_sentence(run_to_the_end(*synthetic(), "--listen", address), address)


def test_plaintext_for_other_machines_needs_insecure() -> None:
    assert_one_sentence(run_to_the_end(*synthetic(), "--listen", "0.0.0.0:0"), "--insecure")


def test_an_unknown_engine_option_is_named() -> None:
    assert_one_sentence(run_to_the_end(*synthetic("no_such_option=1")), "no_such_option", "tokens_per_second")


def test_a_missing_model_is_named() -> None:
    assert_one_sentence(run_to_the_end("--model", "/no/such/model.gguf", "--listen", "127.0.0.1:0"), "/no/such/model")
