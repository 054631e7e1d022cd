"""The marks of one call, and the window over many."""

import time

import pytest

from doherty_service.security import ANYBODY
from doherty_service.telemetry import THRESHOLD, LatencyRecorder, RequestRecord, quantiles


def answered(first: float, last: float, tokens: int) -> RequestRecord:
    """A call whose first and last token came so many seconds after its receive time."""
    call = RequestRecord(method="/doherty.v1.GenerationService/Generate", key="k", request_id="r", caller=ANYBODY)
    call.queue = 0.0
    call.first_token = call.received + first
    call.last_token = call.received + last
    call.summarized = call.received + last
    call.output_tokens = tokens
    return call


def test_what_did_not_happen_is_absent() -> None:
    call = RequestRecord(method="m", key="k", request_id="r", caller=ANYBODY)
    assert list(call.spans()) == []
    assert call.server_timing() == ""


def test_time_per_output_token_needs_two_tokens() -> None:
    assert answered(0.1, 0.1, 1).time_per_output_token is None
    assert answered(0.1, 0.5, 5).time_per_output_token == pytest.approx(0.1)


def test_marks_are_in_order() -> None:
    call = RequestRecord(method="m", key="k", request_id="r", caller=ANYBODY)
    call.mark_started(prompt_tokens=3, preprocess=0.0, engine_queue=0.0)
    call.mark_tokens(1)
    call.mark_tokens(2)
    call.mark_summary("stop")
    assert call.total is not None
    assert call.time_to_last_token is not None
    assert call.time_to_first_token is not None
    assert call.total >= call.time_to_last_token >= call.time_to_first_token >= 0
    assert call.output_tokens == 3
    assert len(call.gaps) == 1


def test_the_engines_own_queue_adds_to_ours() -> None:
    call = RequestRecord(method="m", key="k", request_id="r", caller=ANYBODY)
    call.queue = 1.0
    call.mark_started(prompt_tokens=3, preprocess=0.5, engine_queue=0.25)
    assert (call.queue, call.preprocess) == (1.25, 0.5)


@pytest.mark.parametrize(
    ("count", "p50", "p90", "p99"),
    [(1, 1, 1, 1), (2, 1, 2, 2), (10, 5, 9, 10), (100, 50, 90, 99), (200, 100, 180, 198)],
)
def test_quantiles_are_by_nearest_rank(count: int, p50: float, p90: float, p99: float) -> None:
    found = quantiles([float(value) for value in range(count, 0, -1)])
    assert (found.p50, found.p90, found.p99) == (p50, p90, p99)


def test_quantiles_of_nothing_are_absent() -> None:
    assert quantiles([None]).p50 is None


def test_the_shares_are_those_within_the_threshold() -> None:
    recorder = LatencyRecorder(window=60)
    recorder.record(answered(THRESHOLD / 2, THRESHOLD / 2, 1))
    recorder.record(answered(THRESHOLD / 2, THRESHOLD * 2, 9))
    recorder.record(answered(THRESHOLD * 2, THRESHOLD * 3, 9))
    recorder.record(answered(THRESHOLD / 2, THRESHOLD * 3, 9))
    snapshot = recorder.snapshot()
    assert (snapshot.answers, snapshot.first_token_share, snapshot.last_token_share) == (4, 0.75, 0.25)


def test_an_answer_leaves_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = LatencyRecorder(window=60)
    recorder.record(answered(0.1, 0.2, 2))
    later = time.monotonic() + 30
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert recorder.snapshot().answers == 1
    assert recorder.snapshot(window=10).answers == 0
    monkeypatch.setattr(time, "monotonic", lambda: later + 31)
    assert recorder.snapshot().answers == 0
    assert recorder.snapshot().first_token_share is None
