"""The record of a call, and the rolling window."""

import time
from array import array

import pytest

from doherty_service.security import ANYBODY
from doherty_service.telemetry import THRESHOLD, AbortCause, LatencyRecorder, RequestRecord, quantiles

GENERATE = "/doherty.v1.GenerationService/Generate"


def answered(first: float, last: float, tokens: int) -> RequestRecord:
    """A call whose first and last token arrived these seconds after its receive time."""
    call = RequestRecord(GENERATE, key="k", request_id="r", caller=ANYBODY, status="OK")
    call.queue = 0.0
    call.first_token = call.received + first
    call.last_token = call.received + last
    call.summarized = call.received + last
    call.output_tokens = tokens
    return call


def test_values_that_did_not_occur_are_absent() -> None:
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


def test_the_time_in_the_engines_queue_is_added_to_ours() -> None:
    call = RequestRecord(method="m", key="k", request_id="r", caller=ANYBODY)
    call.queue = 1.0
    call.mark_started(prompt_tokens=3, preprocess=0.5, engine_queue=0.25)
    assert (call.queue, call.preprocess) == (1.25, 0.5)


@pytest.mark.parametrize(
    ("count", "p50", "p90", "p99"),
    [(1, 1, 1, 1), (2, 1, 2, 2), (10, 5, 9, 10), (100, 50, 90, 99), (200, 100, 180, 198)],
)
def test_quantiles_are_by_nearest_rank(count: int, p50: float, p90: float, p99: float) -> None:
    measured = quantiles([float(value) for value in range(1, count + 1)])
    assert (measured.p50, measured.p90, measured.p99) == (p50, p90, p99)


def test_quantiles_of_nothing_are_absent() -> None:
    assert quantiles([]).p50 is None


def ended(status: str, reason: str = "", *, queue: float | None = None, method: str = GENERATE) -> RequestRecord:
    """A call that ended before its first token."""
    return RequestRecord(method, "k", "r", ANYBODY, status=status, reason=reason, queue=queue)


def test_missing_values_rank_last() -> None:
    measured = quantiles([1.0, 2.0, 3.0, 4.0, 5.0], missing=5)
    assert (measured.p50, measured.p90, measured.p99) == (5.0, None, None)
    assert quantiles([], missing=1).p50 is None


def test_the_shares_are_those_within_the_threshold() -> None:
    recorder = LatencyRecorder(window=60)
    recorder.finish(answered(THRESHOLD / 2, THRESHOLD / 2, 1))
    recorder.finish(answered(THRESHOLD / 2, THRESHOLD * 2, 9))
    recorder.finish(answered(THRESHOLD * 2, THRESHOLD * 3, 9))
    recorder.finish(answered(THRESHOLD / 2, THRESHOLD * 3, 9))
    snapshot = recorder.snapshot()
    assert (snapshot.answers, snapshot.first_token_share, snapshot.last_token_share) == (4, 0.75, 0.25)


def test_a_request_without_a_first_token_is_outside_of_the_threshold() -> None:
    recorder = LatencyRecorder(window=60)
    recorder.finish(answered(0.1, 0.2, 2))
    cut_off = answered(0.3, 0.4, 5)
    cut_off.status, cut_off.summarized = "DEADLINE_EXCEEDED", None
    for record in (cut_off, ended("DEADLINE_EXCEEDED", queue=3.0), ended("RESOURCE_EXHAUSTED", "QUEUE_FULL")):
        recorder.finish(record)
    snapshot = recorder.snapshot()
    assert (snapshot.answers, snapshot.first_token_share) == (1, 1.0)
    assert (snapshot.owed, snapshot.owed_share) == (4, 0.5)
    owed = snapshot.owed_time_to_first_token
    assert owed.p50 == pytest.approx(0.3)
    assert owed.p90 is None
    assert (snapshot.waits.p50, snapshot.waits.p99) == (0.0, 3.0)
    assert recorder.first_tokens == {True: 2, False: 2}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("INVALID_ARGUMENT", "INVALID_FIELD"),
        ("UNAUTHENTICATED", "MISSING_KEY"),
        ("UNIMPLEMENTED", "FIELD_NOT_SUPPORTED"),
        ("RESOURCE_EXHAUSTED", "KEY_LIMIT"),
    ],
)
def test_invalid_requests_do_not_count_as_without_a_first_token(status: str, reason: str) -> None:
    recorder = LatencyRecorder(window=60)
    recorder.finish(ended(status, reason))
    snapshot = recorder.snapshot()
    assert (snapshot.owed, snapshot.owed_share) == (0, None)
    assert snapshot.ended.outcomes == {(status, reason, ""): 1}
    assert not recorder.first_tokens


def test_refusals_of_token_counts_are_no_requests_for_an_answer() -> None:
    recorder = LatencyRecorder(window=60)
    method = "/doherty.v1.GenerationService/CountTokens"
    recorder.finish(ended("RESOURCE_EXHAUSTED", "COUNTING_FULL", method=method))
    snapshot = recorder.snapshot()
    assert (snapshot.ended.outcomes, snapshot.ended.refusals) == ({}, {("COUNTING_FULL", ""): 1})


def test_an_old_answer_leaves_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = LatencyRecorder(window=60)
    recorder.finish(answered(0.1, 0.2, 2))
    later = time.monotonic() + 30
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert recorder.snapshot().answers == 1
    assert recorder.snapshot(window=10).answers == 0
    recorder.finish(ended("DEADLINE_EXCEEDED"))
    assert recorder.snapshot(window=10).ended.outcomes == {("DEADLINE_EXCEEDED", "", ""): 1}
    monkeypatch.setattr(time, "monotonic", lambda: later + 31)
    assert recorder.snapshot().answers == 0
    assert recorder.snapshot().first_token_share is None
    assert recorder.snapshot().ended.outcomes.total() == 1
    assert recorder.totals.outcomes.total() == 2


def test_the_window_becomes_shorter_if_there_are_too_many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = LatencyRecorder(window=60)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for second in range(5):
        now = 1000.0 + second
        in_window, refused = ended("OK", queue=0.0), ended("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        for _ in range(6_000):
            recorder.finish(in_window)
            recorder.finish(refused)  # the window does not store it, because it has no times
    snapshot = recorder.snapshot()
    assert snapshot.window == pytest.approx(3.0)
    assert snapshot.ended.outcomes == {("OK", "", ""): 24_000, ("RESOURCE_EXHAUSTED", "QUEUE_FULL", ""): 24_000}
    assert recorder.totals.outcomes.total() == 60_000


def test_a_time_equal_to_the_threshold_is_within_it() -> None:
    recorder = LatencyRecorder(window=60)
    record = answered(0.0, 1.0, 2)
    record.received, record.first_token = 0.0, THRESHOLD
    recorder.finish(record)
    assert recorder.snapshot().first_token_share == recorder.snapshot().owed_share == 1.0
    assert recorder.first_tokens == {True: 1}


@pytest.mark.parametrize(("status", "counted"), [("OK", 0), ("CANCELLED", 0), ("UNAVAILABLE", 0), ("INTERNAL", 1)])
def test_a_multiplex_rpc_counts_only_if_the_server_failed(status: str, counted: int) -> None:
    recorder = LatencyRecorder(window=60)
    method = "/doherty.v1.GenerationService/MultiplexGenerate"
    whole = RequestRecord(method, "k", "r", ANYBODY, status=status, carries_requests=True)
    recorder.finish(whole)
    assert recorder.requests["MultiplexGenerate", status, ""] == 1  # it brought no request
    whole.has_requests = True
    recorder.finish(whole)
    assert recorder.requests["MultiplexGenerate", status, ""] == 1 + counted
    assert not recorder.totals.outcomes
    assert not recorder.durations


def test_only_measured_values_are_observed() -> None:
    recorder = LatencyRecorder(window=60)
    record = answered(0.1, 0.3, 3)
    record.prompt_tokens, record.cached_tokens, record.gaps = 7, 2, array("d", [0.1, 0.1])
    recorder.finish(record)
    cut_off = answered(0.1, 0.2, 2)
    cut_off.status, cut_off.summarized = "CANCELLED", None
    recorder.finish(cut_off)
    recorder.finish(ended("OK", method="/grpc.health.v1.Health/Check"))
    assert recorder.tokens == {("prompt", ""): 7, ("output", ""): 5, ("cached", ""): 2}
    counts = {name: list(histogram.cumulative())[-1][1] for (name, _), histogram in recorder.spans.items()}
    assert (counts["time_to_first_token"], counts["time_to_last_token"], counts["inter_token"]) == (2, 1, 2)
    assert sorted(recorder.durations) == [("Generate", "CANCELLED"), ("Generate", "OK")]
    assert recorder.requests["other", "OK", ""] == 1


def test_a_request_at_the_edge_of_the_window_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = LatencyRecorder(window=60)
    now = 1000.5
    monkeypatch.setattr(time, "monotonic", lambda: now)
    recorder.finish(ended("OK", queue=1.0))
    for later, kept in ((1010.9, 1), (1011.0, 0)):  # the second in which it ended is over at 1001
        now = later
        assert recorder.snapshot(window=10).ended.outcomes.total() == kept
    assert recorder.snapshot(window=1000).window == 60
    now = 1060.9
    recorder.finish(ended("OK"))
    assert recorder.window_size == 1
    now = 1061.0
    recorder.finish(ended("OK"))
    assert recorder.window_size == 0


def test_the_maximum_number_of_requests_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = LatencyRecorder(window=60)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    recorder.finish(ended("OK", queue=0.0))
    now = 1001.0
    for _ in range(19_999):
        recorder.finish(ended("OK", queue=0.0))
    now = 1002.0
    recorder.finish(ended("RESOURCE_EXHAUSTED", "QUEUE_FULL"))
    assert recorder.window_size == 20_000
    recorder.finish(ended("OK", queue=0.0))
    now = 1003.0
    recorder.finish(ended("RESOURCE_EXHAUSTED", "QUEUE_FULL"))
    assert recorder.window_size == 20_000
    assert recorder.snapshot().window == 2.0


def test_aborts_count_by_cause_and_so_does_the_time_until_their_slots_are_free() -> None:
    recorder = LatencyRecorder(window=60)
    for cause in (None, AbortCause.DEADLINE, AbortCause.DEADLINE):
        record = ended("CANCELLED")
        record.abort_cause = cause
        recorder.finish(record)
        recorder.slot_freed(cause, 0.25)
    assert recorder.aborts == {AbortCause.DEADLINE: 2}
    assert {cause: times.sum for cause, times in recorder.slot_frees.items()} == {None: 0.25, AbortCause.DEADLINE: 0.5}


def test_answers_and_failures_are_counted() -> None:
    recorder = LatencyRecorder(window=60)
    assert (recorder.answered, recorder.failed, recorder.engine_restarts) == (0, 0, 0)
    recorder.finish(answered(0.1, 0.2, 2))
    for status, reason in (
        ("UNAVAILABLE", "ENGINE_FAILED"),
        ("RESOURCE_EXHAUSTED", "QUEUE_FULL"),
        ("RESOURCE_EXHAUSTED", "KEY_LIMIT"),
        ("RESOURCE_EXHAUSTED", ""),  # a limit of the transport
        ("INVALID_ARGUMENT", "INVALID_FIELD"),
        ("CANCELLED", ""),
    ):
        recorder.finish(ended(status, reason))
    recorder.finish(ended("OK", method="/doherty.v1.GenerationService/CountTokens"))
    assert (recorder.answered, recorder.failed) == (1, 2)
    assert recorder.totals.refusals == {("QUEUE_FULL", ""): 1, ("KEY_LIMIT", ""): 1}
    assert recorder.first_tokens == {True: 1, False: 3}  # the caller that cancelled was owed a first token, too
