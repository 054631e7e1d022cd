"""Compares the metrics with what callers did."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doherty_service.security import ANYBODY
from doherty_service.telemetry import BOUNDS, THRESHOLD, Histogram, LatencyRecorder, RequestRecord
from support.command import environment
from support.metrics import LISTEN, Scrape, scrape, scrape_until
from support.server import ServerProcess, start_server
from support.vllm import FAKE_PATH, write_head
from support.wire import SECONDS, Caller, connect, request

SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 20, "ignore_eos": True}}
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 4000, "ignore_eos": True}}
SPANS = ("queue", "preprocess", "time_to_first_token", "time_per_output_token", "time_to_last_token")


def test_the_threshold_is_a_bound_of_a_bucket() -> None:
    assert THRESHOLD in BOUNDS
    assert (BOUNDS[0], BOUNDS[-1]) == (0.001, 300)
    assert list(BOUNDS) == sorted(set(BOUNDS))


def test_many_values_are_counted_in_their_buckets() -> None:
    values = [*BOUNDS, 0.0, 301.0, *(random.Random(1).lognormvariate(-4, 3) for _ in range(500))]  # noqa: S311 - test data
    one_by_one, at_once = Histogram(), Histogram()
    for value in values:
        one_by_one.observe(value)
    at_once.observe_each(sorted(values))
    assert list(at_once.cumulative()) == list(one_by_one.cumulative())
    assert at_once.sum == pytest.approx(one_by_one.sum)
    assert [count for _, count in at_once.cumulative()] == [
        sum(value <= bound for value in values) for bound in (*BOUNDS, float("inf"))
    ]


def test_an_answer_that_was_cut_off_has_no_last_token() -> None:
    recorder = LatencyRecorder(window=60)
    call = RequestRecord("/doherty.v1.GenerationService/Generate", "k", "r", ANYBODY, status="CANCELLED")
    call.mark_tokens(1)
    recorder.finish(call)
    assert {name for name, _ in recorder.spans} == {"time_to_first_token"}
    assert recorder.snapshot().answers == 0


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    flags = ("-o", "slots=1", "-o", "tokens_per_second=100", "--max-queued-requests", "1")
    with start_server("--engine", "synthetic", *flags, *LISTEN) as started:
        yield started


@pytest.fixture
def caller(server: ServerProcess) -> Iterator[Caller]:
    with connect(server.target) as connected:
        yield connected


def difference(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    """Returns by how much a counter has grown."""
    return (after.value(name, **labels) or 0.0) - (before.value(name, **labels) or 0.0)


def state(now: Scrape) -> str:
    """Returns the state that the server reports; there must be exactly one."""
    (current,) = [labels for labels in now.labels("doherty_state") if now.value("doherty_state", **labels)]
    return current["state"]


def test_answers_are_counted_and_measured(server: ServerProcess, caller: Caller) -> None:
    before = scrape(server)
    answer = caller.generate(**SHORT)
    parts = caller.stream(**SHORT)
    scrape_until(
        server,
        lambda now: difference(before, now, "doherty_requests_total", rpc="StreamGenerate", status="OK", key="") == 1,
    )
    after = scrape(server)  # the first scrape may have happened while the answer was being counted
    assert difference(before, after, "doherty_requests_total", rpc="Generate", status="OK", key="") == 1
    assert difference(before, after, "doherty_output_tokens_total", key="") == 40
    usage = answer.summary.usage
    assert difference(before, after, "doherty_prompt_tokens_total", key="") == 2 * usage.prompt_tokens
    assert difference(before, after, "doherty_cached_tokens_total", key="") == 2 * usage.cached_tokens
    for rpc, timings in (("Generate", answer.summary.timings), ("StreamGenerate", parts[-1].summary.timings)):
        for span in SPANS:
            name = f"doherty_{span}_seconds"
            assert difference(before, after, f"{name}_count", rpc=rpc) == 1
            seconds = getattr(timings, span).ToNanoseconds() / 1e9
            assert difference(before, after, f"{name}_sum", rpc=rpc) == pytest.approx(seconds, abs=1e-6)
        gaps = difference(before, after, "doherty_inter_token_seconds_count", rpc=rpc)
        assert 1 <= gaps <= 19  # a busy machine merges tokens into one message
        if rpc == "StreamGenerate":
            assert gaps == sum(part.delta.token_count > 0 for part in parts) - 1
        duration = difference(before, after, "doherty_request_duration_seconds_sum", rpc=rpc, status="OK")
        assert duration >= timings.total.ToNanoseconds() / 1e9
        first = difference(before, after, "doherty_time_to_first_token_seconds_bucket", rpc=rpc, le="0.4")
        assert first == (timings.time_to_first_token.ToNanoseconds() / 1e9 <= THRESHOLD)


def test_load_and_refusals_are_measured(server: ServerProcess, caller: Caller) -> None:
    before = scrape(server)
    running = caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS)
    caller.wait_until(lambda now: now.running == 1)
    queued = caller.stub.Generate.future(request(**ENDLESS), timeout=SECONDS)
    caller.wait_until(lambda now: now.queued == 1)
    now = scrape(server)
    assert (now.value("doherty_running_requests"), now.value("doherty_queued_requests")) == (1, 1)
    assert now.value("doherty_queued_bytes") == request(**ENDLESS).ByteSize()
    assert now.value("doherty_slots") == 1
    assert caller.failure(**SHORT).reason == "QUEUE_FULL"
    queued.cancel()
    running.cancel()
    cancelled = {"rpc": "StreamGenerate", "status": "CANCELLED"}
    scrape_until(server, lambda now: difference(before, now, "doherty_request_duration_seconds_count", **cancelled))
    after = scrape(server)  # the first scrape may have happened while the call was being accepted
    assert difference(before, after, "doherty_refusals_total", reason="QUEUE_FULL") == 2
    refused = {"rpc": "Generate", "status": "RESOURCE_EXHAUSTED"}
    assert difference(before, after, "doherty_requests_total", key="", **refused) == 1
    waits = difference(before, after, "doherty_queue_seconds_count", rpc="StreamGenerate")
    assert waits == 1  # for the request that ran, not for the refused one
    after = scrape_until(server, lambda now: difference(before, now, "doherty_aborts_total", cause="cancelled") == 2)
    seconds = caller.wait_until(lambda now: now.running == 0)
    assert seconds.refusals == after.value("doherty_refusals_total", reason="QUEUE_FULL")


def test_a_deadline_is_counted_as_a_separate_cause() -> None:
    with start_server("--engine", "synthetic", *LISTEN) as server, connect(server.target) as caller:
        with pytest.raises(grpc.RpcError):
            caller.stub.Generate(request(**ENDLESS), timeout=3)
        late = {"rpc": "Generate", "status": "DEADLINE_EXCEEDED", "key": ""}
        now = scrape_until(server, lambda now: now.value("doherty_requests_total", **late))
        assert now.value("doherty_aborts_total", cause="deadline") == 1
        scrape_until(server, lambda now: now.value("doherty_slot_free_seconds_count", cause="deadline"))


def test_callers_cannot_create_label_values(server: ServerProcess, caller: Caller) -> None:
    caller.failure(prompt="a", raw_text="b", request_id="label")
    health: Any = health_pb2_grpc.HealthStub(caller.channel)
    health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    for unknown in ("/made.up/Method", "/doherty.v1.GenerationService/Made"):
        call: Any = caller.channel.unary_unary(unknown)
        with pytest.raises(grpc.RpcError):
            call(b"", timeout=SECONDS)
    now = scrape(server)
    known = {"Generate", "StreamGenerate", "CountTokens", "GetModel", "GetLatency", "MultiplexGenerate", "other"}
    assert {labels["rpc"] for labels in now.labels("doherty_requests_total")} <= known
    assert now.value("doherty_requests_total", rpc="other", status="OK", key="")
    assert "other" not in {labels["rpc"] for labels in now.labels("doherty_request_duration_seconds_count")}


def test_metrics_are_served_while_the_model_loads() -> None:
    with start_server("--engine", "synthetic", "-o", "load_seconds=600", *LISTEN, until="metrics") as server:
        now = scrape(server)
        assert now.value("doherty_ready") == 0
        assert now.value("doherty_slots") == 0
        assert [labels["model"] for labels in now.labels("doherty_build_info")] == [""]
        assert state(now) == "loading"
        for name, count in (("aborts", 5), ("refusals", 4), ("first_token_objective", 2), ("requests", 7 * 11)):
            counted = [now.value(f"doherty_{name}_total", **labels) for labels in now.labels(f"doherty_{name}_total")]
            assert counted == [0] * count, name
        assert now.value("doherty_requests_total", rpc="MultiplexGenerate", status="RESOURCE_EXHAUSTED", key="") == 0
        assert now.value("doherty_time_to_first_token_seconds_bucket", rpc="StreamGenerate", le="300.0") == 0
        assert now.value("doherty_last_step_age_seconds") == 0


def test_metrics_show_running_requests_and_draining() -> None:
    flags = ("--engine", "synthetic", "-o", "tokens_per_second=50")
    with start_server(*flags, *LISTEN) as server, connect(server.target) as caller:
        now = scrape(server)
        assert now.value("doherty_ready") == 1
        assert state(now) == "serving"
        assert now.value("doherty_connections") == 1
        scrape_until(server, lambda now: now.value("doherty_event_loop_lag_seconds_count"))
        (build,) = now.labels("doherty_build_info")
        model = caller.model
        assert build == {
            "version": model.server_version,
            "engine": model.engine,
            "engine_version": model.engine_version,
            "model": model.model,
            "revision": model.revision,
        }
        running = caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS)
        caller.wait_until(lambda now: now.running == 1)
        server.process.terminate()
        assert state(scrape_until(server, lambda now: now.value("doherty_ready") == 0)) == "draining"
        running.cancel()
        assert server.wait() == 0


def test_a_hanging_engine_has_an_old_last_step() -> None:
    # The age must be read within the time limit of a step.
    flags = ("-o", "stall_after_steps=4", "-o", "load_seconds=4", "--step-timeout", "4")
    with start_server("--engine", "synthetic", *flags, *LISTEN) as server, connect(server.target) as caller:
        running = caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS)
        next(running)
        scrape_until(server, lambda now: (now.value("doherty_last_step_age_seconds") or 0) > 0.5)
        scrape_until(server, lambda now: state(now) == "restarting")
        scrape_until(server, lambda now: state(now) == "serving")


@pytest.mark.model
def test_the_embedded_engine_reports_its_cache() -> None:
    with start_server(*LISTEN) as server, connect(server.target) as caller:
        caller.generate(**SHORT)
        use = scrape(server).value("doherty_kv_cache_use_ratio")
        assert use is not None
        assert 0 <= use <= 1


def test_accepted_drafts_are_counted(tmp_path: Path) -> None:
    head = write_head(tmp_path / "model", tmp_path / "head")
    flags = ("--engine", "vllm", "--model", str(tmp_path / "model"), "-o", f"draft={head}")
    with start_server(*flags, *LISTEN, PYTHONPATH=FAKE_PATH) as server, connect(server.target) as caller:
        before = scrape(server)
        seconds = caller.generate(**SHORT).summary.speculation
        after = scrape(server)
    positions = [labels["position"] for labels in after.labels("doherty_accepted_draft_tokens_total")]
    accepted = [
        difference(before, after, "doherty_accepted_draft_tokens_total", position=position) for position in positions
    ]
    assert positions == ["1", "2", "3"]
    assert accepted == sorted(accepted, reverse=True)
    assert sum(accepted) >= seconds.accepted_tokens > 0
    assert difference(before, after, "doherty_drafts_total") == seconds.steps - 1
    assert difference(before, after, "doherty_draft_tokens_total") == seconds.draft_tokens


def test_an_address_in_use_is_reported_in_one_sentence(server: ServerProcess) -> None:
    taken = str(server.wait_for("metrics")["address"])
    command = (sys.executable, "-m", "doherty_service", "--engine", "synthetic", "--listen", "127.0.0.1:0")
    ended = subprocess.run(
        (*command, "--metrics-listen", taken),
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=SECONDS,
        env=environment(),
    )
    assert ended.returncode == 2
    assert f"Cannot serve metrics on {taken}: Address already in use." in ended.stderr
