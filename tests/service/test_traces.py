"""OpenTelemetry spans of a real server."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider

from doherty_service.security import ANYBODY
from doherty_service.telemetry import RequestRecord
from doherty_service.tracing._setup import exporter_names
from doherty_service.tracing._spans import Spans
from support.collector import Collector, attributes, running_collector
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Caller, connect, request

SECRET = "tell nobody of the purple walrus"  # noqa: S105 - not a password
ASKED: dict[str, Any] = {"prompt": SECRET, "stopping": {"max_output_tokens": 20, "ignore_eos": True}}
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 4000, "ignore_eos": True}}
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"), ("tracestate", "vendor=value"))


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as started:
        yield started


@pytest.fixture(scope="module")
def server(collector: Collector) -> Iterator[ServerProcess]:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with start_server("--engine", "synthetic", "-o", "slots=1", **variables) as started:
        yield started


@pytest.fixture
def caller(server: ServerProcess, collector: Collector) -> Iterator[Caller]:
    with connect(server.target) as connected:
        collector.next()  # the span of GetModel
        assert collector.is_empty()
        yield connected


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def test_a_unary_call_is_one_span(server: ServerProcess, caller: Caller, collector: Collector) -> None:
    answer = caller.generate(**ASKED, request_id="unary", sampling={"temperature": 0.5, "top_k": 7, "seed": 3})
    span = collector.next()
    assert (span.name, span.kind) == ("doherty.v1.GenerationService/Generate", Span.SPAN_KIND_SERVER)
    assert (span.parent_span_id, span.status.code) == (b"", Status.STATUS_CODE_UNSET)
    span_attributes = attributes(span.attributes)
    line = server.wait_for("request", request_id="unary")
    assert (line["trace_id"], line["span_id"]) == (span.trace_id.hex(), span.span_id.hex())
    expected = {
        "rpc.system.name": "grpc",
        "rpc.method": "doherty.v1.GenerationService/Generate",
        "rpc.response.status_code": "OK",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "doherty",
        "gen_ai.request.model": "synthetic",
        "gen_ai.request.stream": False,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.top_k": 7,
        "gen_ai.request.seed": 3,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.output.type": "text",
        "gen_ai.response.model": "synthetic",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": answer.summary.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": 20,
        "doherty.request_id": "unary",
    }
    assert {name: span_attributes.get(name) for name in expected} == expected
    timings = answer.summary.timings
    for name in ("queue", "preprocess", "time_to_first_token", "time_to_last_token", "total", "time_per_output_token"):
        assert span_attributes[f"doherty.{name}"] == pytest.approx(
            getattr(timings, name).ToNanoseconds() / 1e9, abs=1e-6
        )
    assert timings.total.ToNanoseconds() / 1e9 <= seconds(span)


def test_a_stream_is_one_span_with_its_first_token(caller: Caller, collector: Collector) -> None:
    parts = caller.stream(raw_text=SECRET, constraint={"json_schema": '{"type": "object"}'})
    span = collector.next()
    span_attributes = attributes(span.attributes)
    assert span_attributes["gen_ai.operation.name"] == "text_completion"
    assert span_attributes["gen_ai.output.type"] == "json"
    assert span_attributes["gen_ai.request.stream"] is True
    first = parts[-1].summary.timings.time_to_first_token.ToNanoseconds()
    assert span_attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(first / 1e9, abs=1e-6)
    (event,) = span.events
    assert event.name == "first_token"
    assert first - 1_000 <= event.time_unix_nano - span.start_time_unix_nano <= seconds(span) * 1e9
    assert collector.is_empty()


def test_the_callers_span_is_the_parent(server: ServerProcess, caller: Caller, collector: Collector) -> None:
    caller.stub.Generate(request(**ASKED, request_id="child"), timeout=SECONDS, metadata=PARENT)
    span = collector.next()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert span.trace_state == "vendor=value"
    assert server.wait_for("request", request_id="child")["trace_id"] == TRACE_ID


def test_a_parent_that_is_not_sampled_is_honored(server: ServerProcess, caller: Caller, collector: Collector) -> None:
    unsampled = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00"),)
    caller.stub.Generate(request(**ASKED, request_id="unsampled"), timeout=SECONDS, metadata=unsampled)
    assert server.wait_for("request", request_id="unsampled")["trace_id"] == TRACE_ID
    caller.generate(**ASKED, request_id="sampled")
    assert attributes(collector.next().attributes)["doherty.request_id"] == "sampled"


def test_a_refusal_is_not_the_servers_fault(caller: Caller, collector: Collector) -> None:
    caller.failure(prompt=SECRET, stopping={"stop_texts": [""]})
    for span in (collector.next(), collector.next()):
        span_attributes = attributes(span.attributes)
        assert (span_attributes["rpc.response.status_code"], span_attributes["doherty.reason"]) == (
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
        )
        assert "error.type" not in span_attributes
        assert span.status.code == Status.STATUS_CODE_UNSET


def test_the_span_of_a_cancelled_stream_says_so(caller: Caller, collector: Collector) -> None:
    stream = caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS)
    next(stream)
    stream.cancel()
    span_attributes = attributes(collector.next().attributes)
    assert (span_attributes["rpc.response.status_code"], span_attributes["doherty.abort_cause"]) == (
        "CANCELLED",
        "cancelled",
    )
    assert span_attributes["gen_ai.usage.output_tokens"] >= 1
    assert "gen_ai.response.finish_reasons" not in span_attributes


def test_a_deadline_is_an_error(caller: Caller, collector: Collector) -> None:
    with pytest.raises(grpc.RpcError):
        caller.stub.Generate(request(**ENDLESS), timeout=3)
    span = collector.next()
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span.attributes)["error.type"] == "DEADLINE_EXCEEDED"


def test_a_seed_that_otlp_cannot_hold_is_left_out(server: ServerProcess, caller: Caller, collector: Collector) -> None:
    caller.generate(**ASKED, sampling={"temperature": 1, "seed": str(2**64 - 1)})
    assert "gen_ai.request.seed" not in attributes(collector.next().attributes)
    caller.generate(**ASKED, request_id="after the seed")
    collector.next()
    server.wait_for("request", request_id="after the seed")
    assert not [line for line in server.log if line.get("level") == "error"]


def test_spans_contain_no_text(caller: Caller, collector: Collector) -> None:
    stops = {"stop_texts": ["purple stop"], "max_output_tokens": 5}
    answer = caller.generate(prompt=SECRET, stopping=stops)
    collector.next()
    assert answer.text
    for text in ("walrus", "purple stop", answer.text):
        assert text.encode() not in collector.raw
    assert collector.resources[0].items() >= {"service.name": "doherty"}.items()
    assert collector.resources[0]["service.version"]


def test_an_engine_failure_is_an_error_and_the_last_spans_are_exported_at_the_end(
    collector: Collector,
) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{collector.address}",
        "OTEL_SERVICE_NAME": "mine",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",  # only the end exports them
    }
    with start_server("--engine", "synthetic", "-o", "fail_after_tokens=5", **variables) as server:
        with connect(server.target) as caller:
            caller.failure(**ASKED, request_id="unlucky")
        logged = server.wait_for("error", request_id="unlucky")
        assert collector.is_empty()
        assert server.stop() == 0
    spans = [collector.next() for _ in range(3)]
    failed = [span for span in spans if span.status.code == Status.STATUS_CODE_ERROR]
    assert [span.status.message for span in failed] == ["ENGINE_FAILED"] * 2
    assert logged["trace_id"] in [span.trace_id.hex() for span in failed]
    assert collector.resources[-1]["service.name"] == "mine"


def test_a_hanging_collector_does_not_delay_the_end_beyond_its_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
        }
        with start_server("--engine", "synthetic", **variables) as server:
            with connect(server.target) as caller:
                caller.generate(**ASKED)
            begun = time.monotonic()
            assert server.stop() == 0
    assert time.monotonic() - begun < 20  # the default of OpenTelemetry is 30 s


def test_nothing_is_traced_by_default(synthetic_server: ServerProcess) -> None:
    with connect(synthetic_server.target) as caller:
        caller.stub.Generate(request(**ASKED, request_id="plain"), timeout=SECONDS, metadata=PARENT)
    assert "trace_id" not in synthetic_server.wait_for("request", request_id="plain")


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({}, []),
        ({"OTEL_SERVICE_NAME": "mine"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c", "OTEL_SDK_DISABLED": "TRUE"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_grpc", "console"]),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ["otlp_proto_http"]),
    ],
)
def test_the_standard_variables_turn_tracing_on(variables: dict[str, str], names: list[str]) -> None:
    assert exporter_names(variables) == names


@pytest.mark.parametrize("missing", ["opentelemetry", "exporter"])
def test_a_server_without_opentelemetry_serves(missing: str, tmp_path: Path) -> None:
    variables = {"OTEL_TRACES_EXPORTER": "otlp" if missing == "opentelemetry" else "no_such"}
    if missing == "opentelemetry":
        package = tmp_path / "opentelemetry"
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('opentelemetry is not here')")
        variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with start_server("--engine", "synthetic", **variables) as server, connect(server.target) as caller:
        assert caller.generate(**ASKED).text
        span_attributes = str(server.wait_for("traces_off")["error"])
        assert ("opentelemetry is not here" if missing == "opentelemetry" else "no_such") in span_attributes
        assert server.stop(signal.SIGTERM) == 0


def test_a_span_ends_when_its_request_ended_not_when_that_is_reported() -> None:
    spans = Spans(TracerProvider(shutdown_on_exit=False).get_tracer("test"))
    record = RequestRecord("/doherty.v1.GenerationService/Generate", "k", "k", ANYBODY)
    spans.begin(record, ())
    record.ended = record.received + 1000
    spans.end(record)
    assert (record.span.end_time - record.span.start_time) / 1e9 == pytest.approx(1000, abs=100)


async def test_the_span_is_current_in_the_handler() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    spans = Spans(provider.get_tracer("test"))
    context: Any = object()
    record = RequestRecord("/doherty.v1.GenerationService/Generate", "k", "k", ANYBODY, call=context)
    spans.begin(record, PARENT)
    assert format(trace.get_current_span().get_span_context().trace_id, "032x") == TRACE_ID
    assert record.trace == (TRACE_ID, format(trace.get_current_span().get_span_context().span_id, "016x"))
    spans.end(record)
