"""Supervision of an engine that dies, fails or hangs."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty.v1 import latency_service_pb2, model_pb2
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Caller, Failure, connect, failure_of

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 4}}
LONG: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 4000, "ignore_eos": True}}


def synthetic(*options: str) -> list[str]:
    return ["--engine", "synthetic", *(part for option in options for part in ("-o", option))]


def watch(caller: Caller) -> Iterator[int]:
    stub: Any = health_pb2_grpc.HealthStub(caller.channel)
    for reply in stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS):
        yield reply.status


def assert_told_to_go_elsewhere(failure: Failure) -> None:
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED")
    assert failure.retry_seconds is not None
    assert failure.retry_seconds > 0


def assert_comes_back(server: ServerProcess, caller: Caller, statuses: Iterator[int]) -> None:
    """Checks that the server recovers. The first status was read before the engine failed."""
    assert next(statuses) == NOT_SERVING
    assert next(statuses) == SERVING
    assert caller.generate(**SHORT).summary.usage.output_tokens == 4
    assert server.process.poll() is None


@pytest.mark.parametrize(
    "fault",
    [["die_after_steps=100"], ["stall_after_steps=100", "--step-timeout", "1"]],
    ids=["dies", "hangs"],
)
def test_requests_end_immediately_and_the_engine_is_restarted(fault: list[str]) -> None:
    option, *flags = fault
    with (
        start_server(*synthetic("slots=4", "tokens_per_second=20", option), *flags) as server,
        ThreadPoolExecutor(8) as pool,
        connect(server.target) as caller,
    ):
        statuses = watch(caller)
        assert next(statuses) == SERVING
        running = [pool.submit(failure_of, lambda: caller.stream(**LONG)) for _ in range(4)]
        waiting = [pool.submit(failure_of, lambda: caller.generate(**LONG)) for _ in range(4)]
        caller.wait_until(lambda now: (now.running, now.queued) == (4, 4))
        for call in (*running, *waiting):
            assert_told_to_go_elsewhere(call.result())
        if "stall_after_steps=100" in fault:  # the backoff and five seconds, both for running and for waiting requests
            pauses = [call.result().retry_seconds or 0 for call in (*running, *waiting)]
            assert min(pauses) >= 5.5
            assert len(set(pauses)) > 1  # the retry times differ, so that not all callers come back at the same moment
        assert_comes_back(server, caller, statuses)
        now = caller.wait_until(lambda now: (now.running, now.queued) == (0, 0))
        assert [(abort.cause, abort.count) for abort in now.aborts] == [
            (latency_service_pb2.ABORT_CAUSE_ENGINE, 8),
        ]


def test_a_hang_is_logged_once_for_all_requests() -> None:
    flags = ("--step-timeout", "1", "--canary-interval", "0.2")  # the canary is for an engine without work
    with start_server(*synthetic("stall_after_steps=20"), *flags) as server, connect(server.target) as caller:
        assert_told_to_go_elsewhere(failure_of(lambda: caller.generate(**LONG)))
        assert "while requests run" in str(server.wait_for("engine_failed")["reason"])
        server.wait_for("request")
        server.stop()
        assert not [line for line in [*server.log, *server.read()] if line["event"] == "error"]


def test_an_idle_engine_gets_canaries() -> None:
    # The first canary must not use one of the steps before the request comes.
    flags = ("--canary-interval", "5", "--step-timeout", "1")
    with start_server(*synthetic("stall_after_steps=4"), *flags) as server, connect(server.target) as caller:
        statuses = watch(caller)
        assert next(statuses) == SERVING
        caller.generate(**SHORT)  # the engine hangs after its last token, and no request asks it for anything
        assert "canary" in str(server.wait_for("engine_failed")["reason"])
        assert_comes_back(server, caller, statuses)


def test_a_busy_engine_gets_no_canaries() -> None:
    """A canary would wait behind all other requests, and its long wait would look like an engine that hangs."""
    flags = ("--canary-interval", "0.2", "--step-timeout", "3")
    with (
        start_server(*synthetic("slots=1", "prefill_seconds=1"), *flags) as server,
        ThreadPoolExecutor(4) as pool,
        connect(server.target) as caller,
    ):
        answers = [pool.submit(caller.generate, **SHORT) for _ in range(4)]
        assert all(answer.result().summary.usage.output_tokens == 4 for answer in answers)
        assert server.stop() == 0
    assert not [line for line in (*server.log, *server.read()) if line["event"] == "engine_failed"]


def test_a_healthy_engine_passes_its_canaries() -> None:
    flags = ("--canary-interval", "0.05", "--step-timeout", "5")
    with start_server(*synthetic("die_after_steps=3"), *flags) as server:
        failed = server.wait_for("engine_failed")  # the step of the third canary
        assert "3 steps" in str(failed["reason"])


def test_a_request_that_fails_does_not_affect_others() -> None:
    with start_server(*synthetic("fail_after_tokens=10")) as server, connect(server.target) as caller:
        statuses = watch(caller)
        assert next(statuses) == SERVING
        assert_told_to_go_elsewhere(failure_of(lambda: caller.generate(**LONG)))
        assert caller.generate(**SHORT).summary.usage.output_tokens == 4
        server.stop()
        assert next(statuses) == NOT_SERVING  # not earlier
    assert not [line for line in server.log if line["event"] == "engine_failed"]


def test_callers_get_a_retry_time_while_there_is_no_engine() -> None:
    with (
        start_server(*synthetic("die_after_steps=4", "load_seconds=4")) as server,
        connect(server.target) as caller,
    ):
        caller.generate(**SHORT)
        server.wait_for("engine_failed")
        failure = failure_of(lambda: caller.generate(**SHORT))
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_RESTARTING")
        assert failure.retry_seconds is not None
        model = caller.stub.GetModel(model_pb2.GetModelRequest(), timeout=SECONDS)
        assert model.model == "synthetic"  # the same as before and afterwards


def test_an_engine_that_fails_repeatedly_ends_the_server() -> None:
    flags = ("--max-engine-failures", "1", "--canary-interval", "0.05")
    with start_server(*synthetic("die_after_steps=1"), *flags) as server:
        lost = server.wait_for("engine_lost")
        assert "2 times" in str(lost["reason"])
        assert server.wait() == 1


def test_a_drain_ends_cleanly_while_the_engine_is_gone() -> None:
    with (
        start_server(*synthetic("die_after_steps=4", "load_seconds=0")) as server,
        connect(server.target) as caller,
    ):
        caller.generate(**SHORT)
        server.wait_for("engine_failed")
        assert server.stop() == 0


STUCK = """
import asyncio, sys, time
from doherty_engine.synthetic import SyntheticEngine
from doherty_service.lifecycle import _lifecycle, _supervisor
from doherty_service.command import serve

async def stop(self):
    await asyncio.to_thread(time.sleep, 600)

SyntheticEngine.stop = stop
_lifecycle.STOP_SECONDS = _supervisor.STOP_SECONDS = 0.2
serve(sys.argv[1:])
"""
"""Runs a server whose engine never stops, and keeps a thread for that."""


def start_stuck(*options: str) -> ServerProcess:
    command = [sys.executable, "-c", STUCK, "--listen", "127.0.0.1:0", *synthetic(*options)]
    return ServerProcess(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))


def test_an_engine_that_dies_and_cannot_be_stopped_ends_the_server() -> None:
    server = start_stuck("die_after_steps=1")
    with connect(str(server.wait_for("listening")["address"])) as caller:
        server.wait_for("ready")
        assert_told_to_go_elsewhere(failure_of(lambda: caller.generate(**LONG)))
        assert "cannot be stopped" in str(server.wait_for("engine_lost")["reason"])
        assert server.wait() == 1


def test_an_engine_that_cannot_be_stopped_does_not_outlive_a_signal() -> None:
    server = start_stuck()
    server.wait_for("ready")
    assert server.stop() == 0


def test_garbage_collection_skips_the_objects_of_the_engine(tmp_path: Path) -> None:
    marker = tmp_path / "frozen"
    (tmp_path / "sitecustomize.py").write_text(
        "import gc, os, pathlib\n"
        "leave = os._exit\n"
        "def tell_and_leave(code):\n"
        f"    pathlib.Path({str(marker)!r}).write_text(str(gc.get_freeze_count()))\n"
        "    leave(code)\n"
        "os._exit = tell_and_leave\n"
    )
    with start_server("--engine", "synthetic", PYTHONPATH=str(tmp_path)) as server:
        server.stop()
    assert int(marker.read_text()) > 10_000
