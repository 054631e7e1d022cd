"""Retries of both clients, and the rules for them."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from doherty import CancelledByServerError, InternalError, OverloadedError, RetryPolicy, UnavailableError
from doherty._core._retry import Budget, CallAttempts
from doherty._core._status import CUT_OFF, Status
from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from doherty.v1.request_pb2 import GenerateRequest
from support.serving import Handler, answer, serve
from support.twins import Kind, open_twin

POLICY = RetryPolicy(initial_backoff=0.01, max_backoff=0.02)
UNAVAILABLE = Status(grpc.StatusCode.UNAVAILABLE, "gone")


def _details(code: grpc.StatusCode, retry_after: float | None) -> Any:
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="not now")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="FULL", domain="doherty"))
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(retry_after * 1e9))
        status.details.add().Pack(retry)
    return rpc_status.to_status(status)


def _failing(times: int, code: grpc.StatusCode, *, retry_after: float | None = None, detailed: bool = True) -> Handler:
    """Fails a number of times, and then answers."""
    attempts = count()

    def handler(_: GenerateRequest, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        if next(attempts) < times:
            if detailed:
                context.abort_with_status(_details(code, retry_after))
            context.abort(code, "not now")
        return iter(answer())

    return handler


@pytest.mark.parametrize(
    ("code", "retry_after", "detailed"),
    [
        (grpc.StatusCode.UNAVAILABLE, None, True),
        (grpc.StatusCode.UNAVAILABLE, 0.05, True),
        (grpc.StatusCode.UNAVAILABLE, None, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.05, True),
        (grpc.StatusCode.CANCELLED, None, False),
    ],
)
async def test_temporary_failures_are_retried(
    kind: Kind,
    code: grpc.StatusCode,
    retry_after: float | None,
    detailed: bool,  # noqa: FBT001
) -> None:
    with serve(_failing(2, code, retry_after=retry_after, detailed=detailed)) as serving:
        async with open_twin(kind, serving.target, retry=POLICY) as twin:
            begun = time.monotonic()
            whole = await twin.generate("Hi")
            assert time.monotonic() - begun >= 2 * (retry_after or 0)
            assert (whole.text, whole.network, len(serving.requests)) == ("fine", None, 3)
            assert [sent.get("doherty-attempts") for sent in serving.metadata] == [None, "1", "2"]
            waited = [int(sent.get("doherty-trying-since-ms", -1)) for sent in serving.metadata]
            assert waited[0] == -1
            assert waited[1] >= 1000 * (retry_after or 0)
            assert waited[2] >= waited[1] + 1000 * (retry_after or 0)
    with serve(_failing(2, code, retry_after=retry_after, detailed=detailed)) as serving:
        async with open_twin(kind, serving.target, retry=POLICY) as twin:
            stream = twin.stream("Hi")
            assert (await stream.result()).text == "fine"
            assert (stream.stream.resumed, len(serving.requests)) == (0, 3)


@pytest.mark.parametrize(
    ("code", "detailed", "error"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, True, OverloadedError),
        (grpc.StatusCode.CANCELLED, True, CancelledByServerError),
        (grpc.StatusCode.INTERNAL, True, InternalError),
        (grpc.StatusCode.INTERNAL, False, InternalError),
    ],
)
async def test_permanent_failures_are_raised(
    kind: Kind,
    code: grpc.StatusCode,
    detailed: bool,  # noqa: FBT001
    error: type[Exception],
) -> None:
    with serve(_failing(9, code, detailed=detailed)) as serving:
        async with open_twin(kind, serving.target, retry=POLICY) as twin:
            with pytest.raises(error):
                await twin.generate("Hi")
            with pytest.raises(error):
                await twin.stream("Hi").result()
    assert len(serving.requests) == 2


async def test_the_number_of_retries_is_limited(kind: Kind) -> None:
    with serve(_failing(99, grpc.StatusCode.UNAVAILABLE)) as serving:
        for policy, attempts in ((replace(POLICY, max_attempts=3), 3), (None, 1), (replace(POLICY, budget=0), 1)):
            before = len(serving.requests)
            async with open_twin(kind, serving.target, retry=policy) as twin:
                with pytest.raises(UnavailableError) as raised:
                    await twin.generate("Hi")
            assert len(serving.requests) - before == attempts
            assert (f"after {attempts} attempts" in raised.value.message) is (attempts > 1)


async def test_a_call_fails_immediately_if_the_pause_would_exceed_its_deadline(kind: Kind) -> None:
    """The pause would be longer than a test may take."""
    with serve(_failing(9, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=600)) as serving:
        async with open_twin(kind, serving.target, timeout=200) as twin:
            with pytest.raises(OverloadedError, match="try again in 600 s") as raised:
                await twin.generate("Hi")
    assert raised.value.retry_after == 600
    assert len(serving.requests) == 1


async def test_the_time_limit_of_a_retry_is_the_remaining_time(kind: Kind) -> None:
    with serve(_failing(1, grpc.StatusCode.UNAVAILABLE, retry_after=0.2)) as serving:
        async with open_twin(kind, serving.target) as twin:
            await twin.generate("Hi", time_limit=5)
    limits = [request.stopping.time_limit.ToNanoseconds() / 1e9 for request in serving.requests]
    assert limits[0] == 5
    assert 0 < limits[1] <= 4.8


def _attempts(policy: RetryPolicy | None = POLICY, budget: int = 9, **parameters: Any) -> CallAttempts:
    attempts = CallAttempts(policy, Budget(budget), parameters.pop("timeout", None), resume=True)
    attempts.count = 1
    return attempts


def test_the_pause_grows_and_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", uniform)
    attempts = _attempts(RetryPolicy(initial_backoff=1, max_backoff=5, max_attempts=99))
    pauses = [attempts.pause(UNAVAILABLE, begun=False, free_in=0.2) for _ in range(4)]
    assert pauses == [1, 2, 4, 5]
    assert {low for low, _ in drawn} == {0}
    pause = attempts.pause(replace(UNAVAILABLE, retry_after=10.0), begun=False, free_in=10.0)
    assert pause is not None
    assert pause >= 10
    sooner = attempts.pause(replace(UNAVAILABLE, retry_after=10.0), begun=False, free_in=0.5)
    assert sooner is not None
    assert 0.5 <= sooner < 1  # another target is free by then
    assert attempts.pause(UNAVAILABLE, begun=False, free_in=0.0) == 0


def test_failed_retries_use_up_the_budget() -> None:
    budget = Budget(2)
    taken = 0
    for _ in range(5):
        attempts = CallAttempts(POLICY, budget, None, resume=False)
        attempts.count = 1
        taken += attempts.pause(UNAVAILABLE, begun=False, free_in=0.2) is not None
    assert taken == 2
    for _ in range(10):
        CallAttempts(POLICY, budget, None, resume=False).succeeded()
    attempts = CallAttempts(POLICY, budget, None, resume=False)
    assert attempts.pause(UNAVAILABLE, begun=False, free_in=0.2) is not None
    attempts.succeeded()
    assert budget.take()


def test_a_stream_that_crashes_servers_is_not_continued_forever() -> None:
    attempts = _attempts(budget=0)
    for _ in range(5):
        assert attempts.pause(UNAVAILABLE, begun=True, free_in=0.0) == 0
        attempts.progressed()
    assert attempts.resumed == 5
    assert attempts.pause(UNAVAILABLE, begun=True, free_in=0.0) is None


def test_errors_after_which_a_stream_may_be_retried() -> None:
    for code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        broken = Status(code, "RST_STREAM")
        assert broken.may_pass(begun=True)
        assert not replace(broken, answered=True).may_pass(begun=True)
    assert CUT_OFF.may_pass(begun=True)
    assert not Status(grpc.StatusCode.DEADLINE_EXCEEDED, "").may_pass(begun=True)


@pytest.mark.parametrize(
    "wrong", [{"max_attempts": 0}, {"budget": -1}, {"backoff_multiplier": 0.5}, {"initial_backoff": 9}]
)
def test_an_invalid_policy_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)
