"""Compares the log lines of the SDK, with both clients, with those of the server."""

import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from doherty import DeadlineExceededError, InvalidRequestError, RetryPolicy, UnavailableError
from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from support.server import ServerProcess
from support.serving import answer, serve
from support.twins import ENDLESS, Kind, open_twin

FIELDS = ("rpc", "target", "request_id", "attempt", "code", "reason", "duration_ms", "pause_ms", "trace_id", "span_id")
SHARED = ("request_id", "attempt", "code", "reason")
"""The fields that both logs contain under the same names."""


def _lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Returns the fields of all lines, and their level."""
    lines = [vars(record) for record in caplog.records if record.name == "doherty" and hasattr(record, "rpc")]
    return [{"level": line["levelname"], **{name: line[name] for name in FIELDS}} for line in lines]


@pytest.fixture(autouse=True)
def _debug(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # ends streams that other tests have left open
    caplog.set_level(logging.DEBUG, "doherty")


async def test_an_answer_has_a_line_on_both_sides(
    kind: Kind, synthetic_server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_twin(kind, synthetic_server.target) as twin:
        await twin.generate("secret prompt", max_output_tokens=1)
        await twin.stream("secret prompt", max_output_tokens=1).result()
    whole, stream = (line for line in _lines(caplog) if line["rpc"] != "GetModel")
    assert (whole["rpc"], stream["rpc"]) == ("Generate", "StreamGenerate")
    for line in (whole, stream):
        logged = synthetic_server.wait_for("request", request_id=line["request_id"])
        assert {name: line[name] for name in SHARED} == {name: logged.get(name) for name in SHARED}
        assert logged["rpc"] == ("MultiplexGenerate" if kind == "multiplex" else line["rpc"])
        assert (line["level"], line["target"], line["pause_ms"]) == ("DEBUG", synthetic_server.target, None)
        assert line["duration_ms"] >= 0
    assert "secret" not in caplog.text
    assert f"Generate at {synthetic_server.target}: OK after" in caplog.text
    assert f", request {whole['request_id']}" in caplog.text


async def test_a_failed_call_has_a_line_on_both_sides(
    kind: Kind, synthetic_server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_twin(kind, synthetic_server.target) as twin:
        for call in (twin.generate("Hi", temperature=9), twin.stream("Hi", temperature=9).result()):
            with pytest.raises(InvalidRequestError) as raised:
                await call
            line = _lines(caplog)[-1]
            logged = synthetic_server.wait_for("request", request_id=raised.value.request_id)
            assert {name: line[name] for name in SHARED} == {name: logged.get(name) for name in SHARED}
            assert (line["code"], line["reason"]) == ("INVALID_ARGUMENT", raised.value.reason)
            assert line["request_id"] == raised.value.request_id is not None


async def test_a_retried_call_logs_its_attempts(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    def handler(_: object, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        if len(serving.requests) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return iter(answer())

    with serve(handler) as serving:
        async with open_twin(kind, serving.target, retry=RetryPolicy(initial_backoff=0)) as twin:
            await twin.generate("Hi", request_id="mine")
    first, second = _lines(caplog)
    assert (first["level"], first["code"], first["attempt"], first["request_id"]) == ("INFO", "UNAVAILABLE", 1, "mine")
    assert (second["level"], second["code"], second["attempt"], second["request_id"]) == ("DEBUG", "OK", 2, "r")
    assert first["pause_ms"] == 0
    assert "attempt 2 follows in 0.000 s" in caplog.text


async def test_a_stream_that_the_caller_ends_has_a_line(
    kind: Kind, synthetic_server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_twin(kind, synthetic_server.target) as twin:
        closed = twin.stream("Hi", **ENDLESS)
        await closed.next()
        await closed.close()
        # Streams that another test has left open may end at any time.
        (line,) = (line for line in _lines(caplog) if line["request_id"] == closed.stream.request_id)
        assert (line["rpc"], line["code"], line["reason"]) == ("StreamGenerate", "CANCELLED", None)


async def test_a_stream_that_a_timeout_ends_has_a_line(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    released = threading.Event()

    def handler(_: object, __: object) -> Iterator[StreamGenerateResponse]:
        released.wait()
        yield from answer()

    with serve(handler) as silent:
        async with open_twin(kind, silent.target) as twin:
            with pytest.raises(DeadlineExceededError):
                await twin.stream("Hi", first_token_timeout=0.05, request_id="slow").result()
            released.set()
    (line,) = (line for line in _lines(caplog) if line["request_id"] == "slow")
    assert (line["code"], line["reason"]) == ("CANCELLED", "FIRST_TOKEN_TIMEOUT")


async def test_a_server_without_a_health_service_has_lines_of_both_calls(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(lambda _, __: iter(answer())) as serving:
        async with open_twin(kind, serving.target) as twin:
            await twin("wait_ready")
    assert [(line["rpc"], line["code"]) for line in _lines(caplog)] == [("Check", "UNIMPLEMENTED"), ("GetModel", "OK")]


async def test_the_small_calls_have_lines(twin: Any, caplog: pytest.LogCaptureFixture) -> None:
    for method, arguments in (("count_tokens", ("Hi",)), ("model", ()), ("latency", ()), ("health", ())):
        await twin(method, *arguments)
    assert [line["rpc"] for line in _lines(caplog)] == ["CountTokens", "GetModel", "GetLatency", "Check"]
    assert {line["code"] for line in _lines(caplog)} == {"OK"}


FAILING = """
import logging, sys
if {configured}:
    logging.basicConfig(level=logging.DEBUG, format="mine %(message)s")
from doherty import Client, UnavailableError
try:
    Client("127.0.0.1:1", retry=None, timeout=5).generate("Hi")
except UnavailableError:
    print(any(name.startswith("opentelemetry") for name in sys.modules))
"""


def _run(level: str | None, *, configured: bool = False) -> str:
    environment = {} if level is None else {"DOHERTY_LOG": level}
    command = [sys.executable, "-c", FAILING.format(configured=configured)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    return "\n".join(line for line in finished.stderr.splitlines() if "Generate at" in line or "DOHERTY_LOG" in line)


def test_an_environment_variable_shows_the_lines() -> None:
    line = _run("debug")
    assert line.count("\n") == 0
    assert "DEBUG doherty: Generate at 127.0.0.1:1: UNAVAILABLE after" in line
    assert _run("WARNING") == _run("") == _run(None) == ""
    assert _run("verbose") == "DOHERTY_LOG is one of debug, info, warning, error, not 'verbose'"


def test_text_of_a_server_cannot_write_escape_sequences_to_standard_error() -> None:
    program = (
        "import doherty; import logging; logging.getLogger('doherty').error('%s', chr(27) + '[2J' + chr(10) + 'x')"
    )
    command = [sys.executable, "-c", f"import doherty._core._log; {program}"]
    finished = subprocess.run(command, capture_output=True, check=True, env={"DOHERTY_LOG": "error"}, timeout=60)
    assert finished.stderr.endswith(b"ERROR doherty: \\x1b[2J\\nx\n")


def test_a_program_with_a_log_handler_gets_each_line_once() -> None:
    assert _run("debug", configured=True).startswith("mine Generate at")
    assert _run("debug", configured=True).count("\n") == 0


async def test_a_call_that_reaches_no_server_has_a_line_with_its_status_and_request_id(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_twin(kind, "127.0.0.1:1", retry=None) as twin:
        with pytest.raises(UnavailableError):
            await twin.generate("Hi", request_id="mine")
    line = _lines(caplog)[-1]
    assert (line["level"], line["code"], line["reason"], line["request_id"]) == ("DEBUG", "UNAVAILABLE", None, "mine")
