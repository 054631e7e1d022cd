"""A log that is not read, whose reader has exited, or whose disk is full."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty_service.telemetry import LogWriter
from support.metrics import scrape_address
from support.multiplex import opened, start, wait_until
from support.ports import free_target
from support.wire import SECONDS, Caller, connect, read_failure, request

SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 2, "ignore_eos": True}}


@contextmanager
def logging_to(stderr: int, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Caller, str]]:
    """Yields a server whose standard error is a file of ours, a caller, and the address of its metrics."""
    target, metrics = free_target(), free_target()
    command = [sys.executable, "-m", "doherty_service", "--listen", target, "--metrics-listen", metrics]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DOHERTY_")}
    with subprocess.Popen([*command, "--engine", "synthetic", *flags], stderr=stderr, env=kept) as process:
        try:
            with connect(target) as caller:
                yield process, caller, metrics
        finally:
            process.kill()


def health(caller: Caller) -> int:
    stub: Any = health_pb2_grpc.HealthStub(caller.channel)
    status: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS).status
    return status


def ask(caller: Caller, requests: int) -> None:
    """Makes a number of calls, each of which writes a line to the log."""
    with opened(caller.stub) as rpc:
        label = "x" * 128
        rpc.send(*(start(number, request_id=label, **SHORT) for number in range(1, requests + 1)))
        rpc.rest()
        assert all(rpc.last(number).response.HasField("summary") for number in (1, requests))


def test_a_log_that_is_not_read_does_not_block() -> None:
    reader, writer = os.pipe()
    with logging_to(writer) as (process, caller, _):
        ask(caller, 300)
        for _ in range(10):
            assert caller.generate(**SHORT).text
        assert health(caller) == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    os.close(writer)
    with os.fdopen(reader, "rb") as log:
        assert log.read().count(b"\n") < 300  # the pipe was full


@pytest.mark.parametrize("kind", ["closed pipe", "full disk"])
def test_a_log_that_cannot_be_written_does_not_block(kind: str) -> None:
    """This affects neither the server nor its supervision: an engine that dies is restarted."""
    if kind == "full disk":
        writer = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, writer = os.pipe()
        os.close(reader)
    with logging_to(writer, "-o", "die_after_steps=40") as (process, caller, metrics):
        endless = request(prompt="a", stopping={"max_output_tokens": 8000, "ignore_eos": True})
        with pytest.raises(grpc.RpcError) as failed:
            caller.stub.Generate(endless, timeout=SECONDS)
        assert read_failure(failed.value).reason == "ENGINE_FAILED"
        wait_until(lambda: scrape_address(metrics).value("doherty_engine_restarts_total") == 1)
        wait_until(lambda: health(caller) == health_pb2.HealthCheckResponse.SERVING)
        assert caller.generate(**SHORT).text
        wait_until(lambda: (scrape_address(metrics).value("doherty_log_lines_dropped_total") or 0) > 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    os.close(writer)


def test_lines_that_are_dropped_are_counted_and_reported() -> None:
    reader, writer = os.pipe()
    log = LogWriter(writer)
    line = b"x" * 9999 + b"\n"
    for _ in range(1000):  # twice the number of lines that may wait
        log.put(line.decode())
    log.put("last\n")
    dropped = log.dropped
    assert 0 < dropped < 1000
    with os.fdopen(reader, "rb") as lines:
        seen = list(iter(lines.readline, b"last\n"))
    reports = [json.loads(row) for row in seen if b"log_lines_dropped" in row]
    assert sum(report["lines"] for report in reports) == dropped
    assert seen.count(line) == 1000 - dropped
