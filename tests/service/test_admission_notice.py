"""How a caller without the SDK learns that a streamed request is admitted."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from support.multiplex import opened, start
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Caller, connect, failure_of, request

ASKS = (("doherty-tell-admission", "1"),)
ENDLESS: dict[str, Any] = {"prompt": "Hi", "stopping": {"max_output_tokens": 6000, "ignore_eos": True}}


@pytest.fixture(scope="module")
def slow_server() -> Iterator[ServerProcess]:
    """Runs a server with one slot. Its first token takes longer than the 0.1 s after which admissions are reported."""
    with start_server("--engine", "synthetic", "-o", "slots=1", "-o", "prefill_seconds=1") as server:
        yield server


@pytest.fixture
def caller(slow_server: ServerProcess) -> Iterator[Caller]:
    with connect(slow_server.target) as connected:
        yield connected


def test_the_initial_metadata_arrive_before_the_first_token(caller: Caller) -> None:
    call = caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS)
    (request_id,) = [value for key, value in call.initial_metadata() if key == "doherty-request-id"]
    assert next(iter(call)).start.request_id == request_id
    call.cancel()


def test_initial_metadata_that_arrive_with_the_first_token_are_empty(synthetic_server: ServerProcess) -> None:
    with connect(synthetic_server.target) as caller:
        call = caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS)
        next(iter(call))
        assert not call.initial_metadata()
        call.cancel()


def test_a_refused_request_has_no_initial_metadata(caller: Caller) -> None:
    calls = []

    def refused() -> None:
        calls.append(caller.stub.StreamGenerate(request(prompt="Hi " * 10_000), timeout=SECONDS))
        list(calls[0])

    assert failure_of(refused).code is grpc.StatusCode.INVALID_ARGUMENT
    assert not calls[0].initial_metadata()


def test_an_error_after_the_admission_has_all_its_details() -> None:
    flags = ("-o", "prefill_seconds=0.5", "-o", "die_after_steps=100")
    with start_server("--engine", "synthetic", *flags) as server, connect(server.target) as caller:
        call = caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS)
        assert dict(call.initial_metadata())
        failure = failure_of(lambda: list(call))
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED")


def test_multiplexed_requests_report_their_admission_on_demand(caller: Caller) -> None:
    with opened(caller.stub, metadata=ASKS) as rpc:
        rpc.send(start(1, **ENDLESS), start(2, **ENDLESS))
        first = rpc.first(1)
        assert first.HasField("admission")
        rpc.read_until(lambda: len(rpc.parts(1)) > 1)
        assert not rpc.parts(2)  # it waits for the slot
        assert rpc.parts(1)[1].response.start.request_id == first.admission.request_id != ""
        rpc.send(cancels=[1])
        assert rpc.first(2).HasField("admission")
        rpc.send(start(3, whole=True, prompt="Hi", stopping={"max_output_tokens": 2}), cancels=[2])
        assert rpc.last(3).HasField("response")
        assert len(rpc.parts(3)) == 1
        rpc.rest()


def test_other_requests_do_not_report_their_admission(caller: Caller) -> None:
    with opened(caller.stub) as rpc:
        rpc.send(start(1, **ENDLESS))
        assert rpc.first(1).HasField("response")
        rpc.send(cancels=[1])
        rpc.rest()
