"""Calls that wait for a server, and calls that do not, with both clients."""

import asyncio
import time
from dataclasses import replace

import grpc
import pytest

from doherty import RetryPolicy, UnavailableError
from doherty._core._obstacle import Obstacle
from doherty._core._retry import Budget, CallAttempts
from doherty._core._status import Status
from doherty._core._unreachable import find_obstacle
from support.ports import free_target
from support.server import ServerProcess, start_server
from support.twins import Kind, open_twin

LISTENING = ("--engine", "synthetic", "-o", "tokens_per_second=1000")


async def _is_refused(caplog: pytest.LogCaptureFixture, times: int) -> None:
    while caplog.text.count("Connection refused") < times:  # noqa: ASYNC110 - logging has no event
        await asyncio.sleep(0.01)


async def test_waiting_calls_reach_a_server_that_starts_later(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "doherty")
    target = free_target()
    async with open_twin(kind, target) as twin:
        calls = [asyncio.create_task(call) for call in (twin.generate("Hi"), twin.stream("Hi").result())]
        await _is_refused(caplog, 12)  # more often than max_attempts of both clients
        # The server starts as slowly as one that loads a model: it refuses calls with WARMING_UP.
        with start_server(*LISTENING, "-o", "load_seconds=1", "--listen", target, until="listening"):
            whole, streamed = await asyncio.gather(*calls)
    assert whole.text == streamed.text


async def test_a_call_waits_as_long_as_its_timeout(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "doherty")
    async with open_twin(kind, free_target()) as twin:
        with pytest.raises(UnavailableError, match=r"was not reached: .*Connection refused.*attempts"):
            await twin.generate("Hi", timeout=1)
    assert 0 < sum(vars(record)["pause_ms"] for record in caplog.records) < 1000


@pytest.mark.parametrize("retry", [RetryPolicy(wait_for_ready=False), RetryPolicy(max_attempts=1), None])
async def test_waiting_can_be_turned_off(kind: Kind, retry: RetryPolicy | None) -> None:
    async with open_twin(kind, free_target(), timeout=None, retry=retry) as twin:
        with pytest.raises(UnavailableError) as raised:
            await twin.generate("Hi")
    assert ("after 4 attempts" in raised.value.message) is (retry == RetryPolicy(wait_for_ready=False))


async def test_calls_do_not_wait_for_a_name_that_does_not_exist(kind: Kind) -> None:
    async with open_twin(kind, "does-not-exist.invalid:50051", timeout=None) as twin:
        with pytest.raises(UnavailableError, match="check the name") as raised:
            await twin.generate("Hi")
    assert raised.value.reason == "UNKNOWN_NAME"


async def test_another_server_is_tried_without_a_pause(
    kind: Kind, synthetic_server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "doherty")
    nobody = [free_target() for _ in range(5)]
    async with open_twin(kind, [*nobody, synthetic_server.target]) as twin:
        for _ in range(6):
            assert (await twin.generate("Hi", max_output_tokens=1)).text
    assert {vars(record)["pause_ms"] for record in caplog.records} == {0.0}


UNREACHED = Status(grpc.StatusCode.UNAVAILABLE, "not there", obstacle=Obstacle.NOT_READY)


def test_a_call_without_a_timeout_waits_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = CallAttempts(RetryPolicy(budget=0), Budget(0), None, resume=False)
    now = time.monotonic()
    for count in range(1, 60):
        attempts.count = count
        monkeypatch.setattr("doherty._core._retry.monotonic", lambda: now + count)  # noqa: B023 - called in the same iteration
        pause = attempts.pause(UNREACHED, begun=False, free_in=0.2)
        assert pause is not None
        assert pause <= 2
    monkeypatch.setattr("doherty._core._retry.monotonic", lambda: now + 61)
    assert attempts.pause(UNREACHED, begun=False, free_in=0.2) is None


@pytest.mark.parametrize(
    ("timeout", "left", "reached"), [(10.0, 0.5, False), (10.0, 5.0, True), (1.0, 0.15, False), (1.0, 0.25, True)]
)
def test_a_last_attempt_without_enough_time_does_not_replace_the_error(
    timeout: float, left: float, *, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = CallAttempts(RetryPolicy(), Budget(0), timeout, resume=False)
    end = time.monotonic() + timeout
    attempts.begin_attempt()
    assert attempts.pause(UNREACHED, begun=False, free_in=0.2) is not None
    monkeypatch.setattr("doherty._core._retry.monotonic", lambda: end - left)
    attempts.begin_attempt()
    monkeypatch.setattr("doherty._core._retry.monotonic", lambda: end)
    over = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert attempts.final_status(over) is (over if reached else UNREACHED)
    assert attempts.final_status(answered := replace(over, answered=True)) is answered


@pytest.mark.parametrize(
    ("text", "obstacle"),
    [
        ("Received http2 header with status: 503", Obstacle.NOT_READY),
        ("Received http2 header with status: 429", None),
        ("no healthy upstream", Obstacle.NOT_READY),
        (
            "connections to all backends failing; last error: UNAVAILABLE: ipv4:10.0.0.1:1: backend unhealthy",
            Obstacle.NOT_READY,
        ),
        ("Socket closed", None),
        ("GOAWAY received", None),
    ],
)
def test_calls_wait_only_if_they_reached_no_server(text: str, obstacle: Obstacle | None) -> None:
    assert find_obstacle(Status(grpc.StatusCode.UNAVAILABLE, text), encrypted=False) is obstacle


@pytest.mark.parametrize(("reason", "waits"), [("WARMING_UP", True), ("ENGINE_FAILED", False), (None, False)])
def test_calls_do_not_wait_for_a_server_that_accepted_them(reason: str | None, *, waits: bool) -> None:
    status = Status(grpc.StatusCode.UNAVAILABLE, "later", answered=True, reason=reason)
    assert (find_obstacle(status, encrypted=False) is Obstacle.NOT_READY) is waits
