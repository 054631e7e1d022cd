"""Spans of both clients in a program that uses OpenTelemetry."""

import subprocess
import sys
from collections.abc import Callable

import grpc
import pytest
from opentelemetry.baggage import set_baggage
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from doherty import GenerateOptions, InvalidRequestError, RawText, RetryPolicy, UnavailableError
from support.server import ServerProcess
from support.serving import answer, delta, serve, summary
from support.twins import Kind, open_twin

Spans = Callable[[], tuple[ReadableSpan, ...]]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("doherty._core._span.get_tracer", provider.get_tracer)
    return exporter.get_finished_spans


async def test_a_span_describes_an_answer_without_its_text(kind: Kind, spans: Spans) -> None:
    with serve(lambda _, __: iter(answer('"secret answer"'))) as serving:
        async with open_twin(kind, serving.target) as twin:
            options = GenerateOptions(model="m", top_k=3)
            await twin.generate("secret question", temperature=0.5, max_output_tokens=9, seed=1, options=options)
            await twin.stream(RawText("secret question"), schema={}).result()
    whole, streamed = spans()
    assert (whole.name, streamed.name) == ("chat m", "text_completion")
    assert whole.attributes is not None
    assert streamed.attributes is not None
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.model": "m",
        "gen_ai.request.seed": 1,
        "gen_ai.request.stream": False,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 3,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.output_tokens": 1,
        "server.address": "127.0.0.1",
        "server.port": int(serving.target.rpartition(":")[2]),
    }
    assert {name: whole.attributes.get(name) for name in expected} == expected
    assert (streamed.attributes["gen_ai.output.type"], streamed.attributes["gen_ai.request.stream"]) == ("json", True)
    assert "gen_ai.response.time_to_first_chunk" in streamed.attributes
    for span, metadata in zip((whole, streamed), serving.metadata, strict=True):
        assert span.kind is SpanKind.CLIENT
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" in str(metadata["traceparent"])
        assert f"{span.context.span_id:016x}" in str(metadata["traceparent"])
        assert "secret" not in span.to_json()


async def test_a_span_covers_all_attempts(kind: Kind, spans: Spans) -> None:
    def handler(_: object, __: object) -> object:
        again = len(serving.requests) > 1
        return iter((delta("b", 2, start=True), summary()) if again else (delta("a", 1, start=True),))

    with serve(handler) as serving:  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        async with open_twin(kind, serving.target) as twin:
            await twin.stream("Hi").result()
    (span,) = spans()
    assert span.attributes is not None
    assert (span.attributes["doherty.attempts"], span.attributes["doherty.resumed"]) == (2, 1)
    assert [event.name for event in span.events] == ["doherty.attempt_failed", "doherty.attempt"]
    assert span.events[0].attributes is not None
    assert span.events[0].attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert serving.metadata[0]["traceparent"] == serving.metadata[1]["traceparent"]


async def test_a_span_describes_an_error(kind: Kind, spans: Spans) -> None:
    def handler(_: object, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    with serve(handler) as serving:  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        async with open_twin(kind, serving.target, retry=RetryPolicy(max_attempts=2, initial_backoff=0)) as twin:
            for read in (twin.generate("Hi"), twin.stream("Hi").result()):
                with pytest.raises(UnavailableError):
                    await read
    assert len(serving.requests) == 4
    for span in spans():
        assert span.attributes is not None
        assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "UNAVAILABLE")


async def test_a_span_of_a_failed_call_has_the_request_id_of_the_servers_log(
    kind: Kind, spans: Spans, synthetic_server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "doherty")
    async with open_twin(kind, synthetic_server.target) as twin:
        for read in (twin.generate("Hi", temperature=9), twin.stream("Hi", temperature=9).result()):
            with pytest.raises(InvalidRequestError) as raised:
                await read
            span = spans()[-1]
            assert span.attributes is not None
            assert span.context is not None
            logged = synthetic_server.wait_for("request", request_id=raised.value.request_id)
            assert (span.attributes["rpc.response.status_code"], span.attributes["doherty.attempts"]) == (
                logged["code"],
                1,
            )
            assert span.attributes["doherty.request_id"] == logged["request_id"]
            assert span.attributes["doherty.reason"] == logged["reason"]
            line = vars(caplog.records[-1])
            assert line["trace_id"] == f"{span.context.trace_id:032x}" == logged.get("trace_id", line["trace_id"])
            assert line["span_id"] == f"{span.context.span_id:016x}"


async def test_a_stream_that_is_closed_ends_its_span(kind: Kind, spans: Spans) -> None:
    with serve(lambda _, __: iter(answer())) as serving:
        async with open_twin(kind, serving.target) as twin:
            stream = twin.stream("Hi")
            await stream.close()
            await stream.close()
    (span,) = spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "StreamError"


async def test_an_error_that_does_not_come_from_grpc_ends_the_span(
    kind: Kind, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("not today")

    monkeypatch.setattr("doherty._core._status.read_status", fail)
    async with open_twin(kind, "127.0.0.1:1") as twin:
        for read in (twin.generate("Hi"), twin.stream("Hi").result()):
            with pytest.raises(LookupError):
                await read
    whole, streamed = spans()
    for span in (whole, streamed):
        assert span.attributes is not None
        assert span.attributes["error.type"] == "LookupError"


async def test_baggage_reaches_the_server_with_either_client(kind: Kind, spans: Spans) -> None:
    sent: list[str] = []
    context = attach(set_baggage("tenant", "7"))
    try:
        with serve(lambda _, __: iter(answer())) as serving:
            async with open_twin(kind, serving.target) as twin:
                await twin.generate("Hi")
                await twin.stream("Hi").result()
            sent += [str(metadata["baggage"]) for metadata in serving.metadata]
    finally:
        detach(context)
    assert sent == ["tenant=7", "tenant=7"]
    assert len(spans()) == 2


def test_a_program_without_opentelemetry_does_not_load_it() -> None:
    program = (
        "from doherty import Client, UnavailableError; import sys\n"
        "try: Client('127.0.0.1:1', retry=None).generate('Hi')\n"
        "except UnavailableError: print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout == "False\n"
