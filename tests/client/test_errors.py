"""The errors that both clients raise."""

import asyncio
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from doherty import (
    AsyncClient,
    AsyncGenerationStream,
    Client,
    ClientClosedError,
    DeadlineExceededError,
    DohertyError,
    EventLoopError,
    GenerateOptions,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    RpcError,
    UnavailableError,
    UnsupportedError,
)
from doherty import GenerateOptions as Options
from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from doherty.v1.request_pb2 import GenerateRequest
from support.server import ServerProcess, start_server
from support.serving import serve
from support.twins import ENDLESS, Kind, Twin, open_twin


async def _raised(twin: Twin, *args: Any, **parameters: Any) -> RpcError:
    """Returns the error of a request, which must be the same from both calls."""
    with pytest.raises(RpcError) as unary:
        await twin.generate(*args, **parameters)
    with pytest.raises(RpcError) as streamed:
        await twin.stream(*args, **parameters).result()
    assert type(unary.value) is type(streamed.value)
    messages = [re.sub(r"\d+(\.\d+)? s", "a while", error.value.message) for error in (unary, streamed)]
    assert messages[0] == messages[1]
    return unary.value


async def test_a_wrong_field_is_named(twin: Twin) -> None:
    error = await _raised(twin, "hi", temperature=9, max_output_tokens=0, request_id="mine")
    assert isinstance(error, InvalidRequestError)
    assert {violation.field for violation in error.field_violations} == {
        "sampling.temperature",
        "stopping.max_output_tokens",
    }
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert error.request_id == "mine"
    assert error.message in str(error)
    assert "INVALID_ARGUMENT, request mine" in str(error)
    assert (error.retry_after, isinstance(error.__cause__, grpc.RpcError)) == (None, True)


@pytest.mark.parametrize("parameters", [{"options": Options(model="other")}, {"adapter": "other"}])
async def test_an_unknown_model_or_adapter_is_not_found(twin: Twin, parameters: dict[str, Any]) -> None:
    error = await _raised(twin, "hi", **parameters)
    assert isinstance(error, NotFoundError)
    assert "client.model()" in error.message


async def test_a_field_that_the_deployment_lacks_is_unsupported(twin: Twin) -> None:
    error = await _raised(twin, "hi", options=Options(regex="a+"))
    assert isinstance(error, UnsupportedError)
    assert error.field_violations[0].field == "constraint.regex"
    assert error.message.startswith("GenerateOptions.regex: ")
    assert "features" in error.message


async def test_a_message_above_the_limit_is_mapped_by_its_code(kind: Kind, synthetic_server: ServerProcess) -> None:
    # The field that resuming needs makes the request of a stream four bytes longer.
    async with open_twin(kind, synthetic_server.target, resume=False) as twin:
        limit = (await twin("model")).limits.max_message_bytes
        error = await _raised(twin, "x" * (limit + 1))
    assert isinstance(error, InvalidRequestError)
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (error.reason, error.request_id, error.retry_after) == (None, None, None)


async def test_an_overloaded_error_says_when_to_retry(kind: Kind) -> None:
    with start_server("--engine", "synthetic", "-o", "slots=1", "--max-queued-requests", "0") as server:
        async with open_twin(kind, server.target, retry=None) as twin:
            running = twin.stream("hi", **ENDLESS)
            await running.next()
            error = await _raised(twin, "hi")
            await running.close()
    assert isinstance(error, OverloadedError)
    assert error.retry_after is not None
    assert error.retry_after > 0
    assert "try again in" in error.message


async def test_a_timeout_says_that_it_was_the_callers(kind: Kind, synthetic_server: ServerProcess) -> None:
    async with open_twin(kind, synthetic_server.target, timeout=0.3) as twin:
        for timeout, expected in (
            ({"timeout": 0.2}, "0.2 s (the timeout of the call)"),
            ({}, "0.3 s (the timeout of the"),
        ):
            error = await _raised(twin, "hi", **timeout, **ENDLESS)
            assert isinstance(error, DeadlineExceededError)
            assert isinstance(error, TimeoutError)
            assert error.message.startswith(f"{synthetic_server.target} did not finish within {expected}")


async def test_a_deadline_of_a_proxy_differs_from_the_callers(kind: Kind) -> None:
    def proxy_that_gives_up(_: GenerateRequest, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "upstream request timeout")

    with serve(proxy_that_gives_up) as serving:
        async with open_twin(kind, serving.target) as twin:
            error = await _raised(twin, "hi")
    assert isinstance(error, DeadlineExceededError)
    assert "has a time limit of its own, which ended the call: upstream request timeout" in error.message


async def test_no_server_is_a_connection_error(kind: Kind) -> None:
    async with open_twin(kind, "127.0.0.1:1", retry=None) as twin:
        error = await _raised(twin, "hi")
    assert isinstance(error, UnavailableError)
    assert isinstance(error, ConnectionError)
    assert "127.0.0.1:1 was not reached" in error.message
    assert "Connection refused" in error.message
    assert error.reason is None


async def test_a_server_that_is_not_ready_is_unavailable(kind: Kind) -> None:
    with start_server("--engine", "synthetic", "-o", "load_seconds=60", until="listening") as server:
        async with open_twin(kind, server.target, retry=None) as twin:
            error = await _raised(twin, "hi")
    assert isinstance(error, UnavailableError)
    assert f"{server.target} cannot answer now" in error.message
    assert error.reason is not None
    assert error.retry_after is not None


async def test_the_error_of_a_failed_call_has_its_timings() -> None:
    with (
        start_server("--engine", "synthetic", "-o", "fail_after_tokens=5") as server,
        Client(server.target, retry=None) as client,
        pytest.raises(UnavailableError) as raised,
    ):
        client.generate("hi")
    assert raised.value.timings is not None
    assert raised.value.timings.queue is not None
    assert raised.value.timings.total is None


async def test_a_closed_client_says_so(kind: Kind, synthetic_server: ServerProcess) -> None:
    async with open_twin(kind, synthetic_server.target) as twin:
        await twin("close")
        for method, arguments in (("generate", ["hi"]), ("count_tokens", ["hi"]), ("model", []), ("latency", [])):
            with pytest.raises(ClientClosedError, match="The client is closed"):
                await twin(method, *arguments)
        with pytest.raises(ClientClosedError):
            await twin("wait_ready")
        with pytest.raises(ClientClosedError):
            twin.stream("hi")


async def test_closing_a_client_ends_calls_that_wait(kind: Kind, twin: Twin) -> None:
    before = await twin.aborts()
    async with open_twin(kind, twin.client.target) as other:
        waiting = asyncio.create_task(other.generate("hi", **ENDLESS))
        while not (await twin("latency")).running:
            pass
    with pytest.raises(ClientClosedError):
        await waiting
    assert await twin.aborts() > before


def test_an_asynchronous_client_belongs_to_one_event_loop(synthetic_server: ServerProcess) -> None:
    client = AsyncClient(synthetic_server.target)

    async def count() -> int:
        return await client.count_tokens("hi")

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(count()) > 0
        with pytest.raises(EventLoopError, match="one for each loop"):
            second.run(count())
        with pytest.raises(RuntimeError, match="on a running event loop only"):
            client.stream_generate("hi")
        first.run(client.close())


@pytest.mark.parametrize("options", [{}, {"multiplex": True}])
def test_a_stream_belongs_to_the_event_loop_of_its_client(
    synthetic_server: ServerProcess, options: dict[str, Any]
) -> None:
    client = AsyncClient(synthetic_server.target, **options)

    async def begin() -> AsyncGenerationStream[None]:
        stream = client.stream_generate(
            "hi", max_output_tokens=20, options=GenerateOptions(ignore_eos=True, token_ids=True)
        )
        await anext(stream)
        return stream

    with asyncio.Runner() as first, asyncio.Runner() as second:
        stream = first.run(begin())
        with pytest.raises(EventLoopError, match="one for each loop"):
            second.run(stream.result())
        answer = first.run(stream.result())
        assert len(answer.token_ids or ()) == answer.usage.output_tokens == 20
        first.run(client.close())


def test_errors_can_be_pickled(synthetic_server: ServerProcess) -> None:
    with Client(synthetic_server.target) as client, pytest.raises(InvalidRequestError) as raised:
        client.generate("hi", temperature=9)
    copy = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - it is our own
    assert str(copy) == str(raised.value)
    assert (copy.code, copy.field_violations) == (raised.value.code, raised.value.field_violations)


@pytest.mark.parametrize("target", ["localhost", "http://localhost:50051"])
def test_an_invalid_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Client(target)


@pytest.mark.parametrize(
    ("timeout", "error"), [("3", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)]
)
def test_an_invalid_timeout_is_refused(synthetic_server: ServerProcess, timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout="):
        Client(synthetic_server.target, timeout=timeout)
    with Client(synthetic_server.target) as client, pytest.raises(error, match="timeout="):
        client.generate("Hi", timeout=timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e12, None])
def test_an_infinite_timeout_does_not_expire(synthetic_server: ServerProcess, timeout: float | None) -> None:
    with Client(synthetic_server.target, timeout=timeout) as client:
        assert client.generate("Hi", max_output_tokens=1, timeout=timeout).text


def test_a_program_ends_without_closing_a_client_that_reached_no_server() -> None:
    program = "from doherty import Client; client = Client('127.0.0.1:9'); client.generate('Hi', max_retries=0)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert finished.returncode == 1
    assert "UnavailableError" in finished.stderr


def test_the_error_of_a_lost_server_does_not_say_that_it_was_not_reached() -> None:
    with (
        start_server("--engine", "synthetic", "-o", "tokens_per_second=20") as server,
        Client(server.target, resume=False) as client,
        client.stream_generate("Hi") as stream,
    ):
        next(stream)
        server.process.kill()
        with pytest.raises(UnavailableError, match="was lost in the middle of its answer"):
            stream.result()
        assert stream.text


def test_a_request_that_is_too_large_says_so(synthetic_server: ServerProcess) -> None:
    with Client(synthetic_server.target) as client, pytest.raises(InvalidRequestError, match="max_message_bytes"):
        client.generate("x" * 5_000_000)


def test_errors_have_the_module_that_callers_import() -> None:
    assert repr(UnavailableError) == "<class 'doherty.UnavailableError'>"
    assert all(kind.__module__ == "doherty" for kind in (DohertyError, *DohertyError.__subclasses__()))
