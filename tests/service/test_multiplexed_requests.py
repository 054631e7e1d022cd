"""Counting, limiting and logging each request of a MultiplexGenerate."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty.v1 import latency_service_pb2
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty_service.security import changing_keys
from support.collector import attributes, running_collector
from support.metrics import LISTEN, scrape, scrape_until
from support.multiplex import failure_in, opened, start, text_of
from support.security import add_key, bearer
from support.server import ServerProcess, start_server
from support.wire import Caller, connect, failure_of

ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 6000, "ignore_eos": True}}
SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}
SYNTHETIC = ("--engine", "synthetic", "-o", "tokens_per_second=200")
CANCELLED, DEADLINE = latency_service_pb2.ABORT_CAUSE_CANCELLED, latency_service_pb2.ABORT_CAUSE_DEADLINE


@pytest.fixture
def small() -> Iterator[tuple[ServerProcess, Caller]]:
    """Runs a server with one slot, two places in the queue, and metrics."""
    flags = ("-o", "slots=1", "--max-queued-requests", "2", *LISTEN)
    with start_server(*SYNTHETIC, *flags) as server, connect(server.target) as caller:
        yield server, caller


def test_log_metrics_and_latency_are_those_of_the_requests(small: tuple[ServerProcess, Caller]) -> None:
    server, caller = small
    with opened(caller.stub) as rpc:
        rpc.send(start(1, request_id="one", **SHORT))
        rpc.last(1)
        rpc.send(start(2, request_id="two", whole=True, **SHORT))
        rpc.last(2)
        rpc.send(start(3, request_id="left", timeout=50, **ENDLESS))
        rpc.first(3)
        rpc.send(cancels=[3])
        rpc.last(3)
        rpc.send(start(4, request_id="late", timeout=1.5, **ENDLESS), start(5, request_id="wrong"))
        rpc.last(4)
        rpc.rest()
    codes = {"one": "OK", "two": "OK", "left": "CANCELLED", "late": "DEADLINE_EXCEEDED", "wrong": "INVALID_ARGUMENT"}
    for name, code in codes.items():
        line = server.wait_for("request", request_id=name)
        assert (line["rpc"], line["code"]) == ("MultiplexGenerate", code)
        assert code != "OK" or line["output_tokens"] == 4
        assert "deadline_ms" in line  # the trace of the RPC, or its own one
    now = caller.wait_until(lambda now: not now.running)
    assert now.answers == 2
    assert {abort.cause: abort.count for abort in now.aborts} == {CANCELLED: 1, DEADLINE: 1}
    metrics = scrape(server)
    counted = {
        label["status"]: count
        for label in metrics.labels("doherty_requests_total")
        if label["rpc"] == "MultiplexGenerate" and (count := metrics.value("doherty_requests_total", **label))
    }
    # The RPC that brought them is not counted in addition.
    assert counted == {"OK": 2, "CANCELLED": 1, "DEADLINE_EXCEEDED": 1, "INVALID_ARGUMENT": 1}


def test_the_queue_is_bounded_and_older_requests_go_first(small: tuple[ServerProcess, Caller]) -> None:
    _, caller = small
    with opened(caller.stub) as rpc:
        rpc.send(start(1, **ENDLESS))
        rpc.first(1)
        rpc.send(*(start(number, **SHORT, request_id=str(number)) for number in (2, 3)))
        caller.wait_until(lambda now: now.queued == 2)
        rpc.send(start(4, **SHORT))
        refusal = rpc.failure(4)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal.retry_seconds is not None
        rpc.send(start(5, attempts=1, trying_for=20, **SHORT))
        assert rpc.failure(3).reason == "QUEUE_FULL"  # the youngest request was refused
        rpc.send(cancels=[1])
        assert rpc.last(5).response.HasField("summary")
        assert 2 not in rpc.ended
        rpc.rest()


def test_batch_gives_way_to_the_interactive(small: tuple[ServerProcess, Caller]) -> None:
    _, caller = small
    with opened(caller.stub) as rpc:
        rpc.send(start(1, **ENDLESS))
        rpc.first(1)
        rpc.send(start(2, priority="PRIORITY_BATCH", **SHORT), start(3, priority="PRIORITY_BATCH", **SHORT))
        caller.wait_until(lambda now: now.queued == 2)
        rpc.send(start(4, priority="PRIORITY_INTERACTIVE", **SHORT))
        assert rpc.failure(3).reason == "QUEUE_FULL"  # the youngest request was refused
        rpc.send(cancels=[1])
        for number in (2, 4):
            assert rpc.last(number).response.HasField("summary")
        rpc.rest()


def test_a_deadline_passes_in_the_queue(small: tuple[ServerProcess, Caller]) -> None:
    server, caller = small
    with opened(caller.stub) as rpc:
        rpc.send(start(1, **ENDLESS))
        rpc.first(1)
        for _ in range(40):
            rpc.read()
        # The server knows its speed by now, but not how long answers are here, so it accepts these requests.
        rpc.send(start(2, timeout=2, request_id="queued", **SHORT), start(3, whole=True, timeout=2, **SHORT))
        for number in (2, 3):
            failure = rpc.failure(number)
            assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED")
        assert server.wait_for("request", request_id="queued")["code"] == "DEADLINE_EXCEEDED"
        caller.wait_until(lambda now: (now.running, now.queued) == (1, 0))
        rpc.send(cancels=[1])
        rpc.rest()


def test_requests_beyond_the_open_limit_are_served_later() -> None:
    with start_server(*SYNTHETIC, "--max-concurrent-streams", "8") as server, connect(server.target) as caller:
        with opened(caller.stub) as rpc:
            rpc.send(*(start(number, whole=number % 2 == 0, **SHORT) for number in range(1, 101)))
            rpc.send(*(start(number, **SHORT) for number in range(101, 121)))
            rpc.rest()
            assert {text_of(rpc.parts(number)) for number in range(1, 121)} == {text_of(rpc.parts(1))}
        with opened(caller.stub) as rpc:
            rpc.send(*(start(number, **ENDLESS) for number in range(1, 9)))
            rpc.first(8)
            rpc.send(start(9, **SHORT), start(10, **ENDLESS), start(11, **SHORT))
            rpc.send(cancels=[10])
            assert rpc.failure(10).reason == "CANCELLED"  # although it waits
            rpc.send(cancels=[3])
            assert rpc.failure(3).reason == "CANCELLED"  # this makes room for the requests behind it
            for number in (9, 11):
                assert rpc.last(number).response.HasField("summary")
            rpc.send(cancels=range(1, 9))
            rpc.rest()


def test_a_key_counts_each_request(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "pair", max_concurrent=2, adapters=())
    with (
        start_server(*SYNTHETIC, "--keys-file", str(keys), *LISTEN) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = GenerationServiceStub(channel)
        with opened(stub) as keyless:
            assert failure_of(keyless.read).reason == "MISSING_KEY"
        with opened(stub, metadata=bearer(token)) as rpc:
            rpc.send(start(1, **ENDLESS), start(2, request_id="mine", **ENDLESS), start(3, **SHORT))
            failure = rpc.failure(3)
            assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "KEY_LIMIT")
            assert failure.retry_seconds is not None
            rpc.send(cancels=[2])
            rpc.last(2)
            assert server.wait_for("request", request_id="mine")["key"] == "pair"
            rpc.send(start(4, **SHORT), start(5, adapter="poet", **SHORT))
            assert rpc.failure(5).reason == "ADAPTER_NOT_ALLOWED"
            assert rpc.last(4).response.HasField("summary")
            with changing_keys(keys) as held:
                held.clear()
            rpc.send(start(6, **SHORT))
            failure = rpc.failure(6)
            assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_KEY")
            rpc.send(cancels=[1])
            rpc.rest()
        scrape_until(server, lambda now: any(label["key"] == "pair" for label in now.labels("doherty_requests_total")))


def test_each_request_is_a_child_of_its_callers_span() -> None:
    with running_collector() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}", "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with start_server(*SYNTHETIC, **variables) as server, connect(server.target) as caller:
            collector.next()  # the span of GetModel
            with opened(caller.stub) as rpc:
                begun = [start(number, request_id=str(number), **SHORT) for number in (1, 2, 3)]
                for number, request in enumerate(begun[:2], 1):
                    request.traceparent = f"00-{number:032x}-{number:016x}-01"
                    request.tracestate = f"vendor={number}"
                begun.append(start(4, request_id="4", **SHORT))
                begun[3].traceparent, begun[3].tracestate = "\0nonsense", "=,=,\n" * 100
                rpc.send(*begun)
                rpc.rest()
            spans = {
                str(attributes(span.attributes)["doherty.request_id"]): span
                for span in (collector.next() for _ in "1234")
            }
            for number in (1, 2):
                span = spans[str(number)]
                assert (span.trace_id.hex(), span.parent_span_id.hex()) == (f"{number:032x}", f"{number:016x}")
                assert span.trace_state == f"vendor={number}"
                assert span.name == "doherty.v1.GenerationService/MultiplexGenerate"
                assert server.wait_for("request", request_id=str(number))["trace_id"] == f"{number:032x}"
            assert spans["3"].parent_span_id == spans["4"].parent_span_id == b""
            assert collector.is_empty()  # the RPC itself is not a request


def test_a_drain_refuses_new_requests_and_lets_running_ones_end() -> None:
    with start_server(*SYNTHETIC, "--max-concurrent-streams", "4") as server, connect(server.target) as caller:
        with opened(caller.stub) as rpc:
            sent: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 1000, "ignore_eos": True}}
            rpc.send(start(1, **sent), start(2, whole=True, **sent))
            rpc.first(1)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("draining")
            rpc.send(*(start(number, **SHORT) for number in range(3, 9)))
            for number in range(3, 9):
                failure = rpc.failure(number)
                assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
                assert failure.retry_seconds is not None
            assert not rpc.ended & {1, 2}
            for number in (1, 2):
                assert rpc.last(number).response.summary.usage.output_tokens == 1000
            assert failure_of(rpc.read).reason == "DRAINING"
        assert server.wait() == 0


def test_an_engine_that_dies_ends_the_requests_and_not_the_rpc() -> None:
    flags = ("-o", "die_after_steps=10", "-o", "slots=2")
    with start_server(*SYNTHETIC, *flags) as server, connect(server.target) as caller, opened(caller.stub) as rpc:
        rpc.send(start(1, **ENDLESS), start(2, whole=True, **ENDLESS), start(3, **ENDLESS))
        for number in (1, 2, 3):
            failure = rpc.failure(number)
            assert failure.code is grpc.StatusCode.UNAVAILABLE
            assert failure.reason in {"ENGINE_FAILED", "ENGINE_RESTARTING"}
            assert failure.retry_seconds is not None
        assert failure_in(rpc.parts(1)[-1]).reason == failure_in(rpc.parts(2)[-1]).reason == "ENGINE_FAILED"
        assert text_of(rpc.parts(1))
        server.wait_for("engine_failed")
        number = 4
        rpc.send(start(number, **SHORT))
        while rpc.last(number).HasField("status"):
            assert failure_in(rpc.last(number)).reason in {"ENGINE_RESTARTING", "WARMING_UP"}
            number += 1
            rpc.send(start(number, **SHORT))
        rpc.rest()
