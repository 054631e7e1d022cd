"""Builds the parts of the replies of GetModel and GetLatency."""

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from doherty.v1 import latency_service_pb2, model_pb2, request_pb2
from doherty_engine import ModelInfo, Sampling
from doherty_service.telemetry import THRESHOLD, AbortCause, Quantiles, Snapshot, Tally
from doherty_service.translation._deployment import Deployment
from doherty_service.translation._fields import sampling
from doherty_service.translation._supported import SERVER_FEATURES
from doherty_service.translation._violations import Violations

_Labels = TypeVar("_Labels", bound=tuple[str, ...])
_STATUS_AND_REASON, _KEY, _ALL = slice(0, 2), slice(2, 3), slice(None)
"""Parts of an `Outcome` or of a `Refusal`."""


def duration(seconds: float | None) -> Duration | None:
    """Converts seconds to a Duration; None stays None."""
    if seconds is None:
        return None
    wire = Duration()
    wire.FromNanoseconds(round(seconds * 1e9))
    return wire


def default_sampling(model: ModelInfo, deployment: Deployment) -> request_pb2.Sampling:
    """The sampling settings of a request that sets none; without those that are off."""
    defaults = sampling(request_pb2.Sampling(), model.default_sampling, deployment, 0, Violations())
    off = Sampling()
    wire = request_pb2.Sampling(temperature=defaults.temperature)
    for field in request_pb2.Sampling.DESCRIPTOR.fields:
        value = getattr(defaults, field.name)
        if value != getattr(off, field.name):
            setattr(wire, field.name, value)
    return wire


def limits(model: ModelInfo, deployment: Deployment, *, max_queued: int, max_message_bytes: int) -> model_pb2.Limits:
    """The limits of the deployment."""
    return model_pb2.Limits(
        context_tokens=model.context_tokens,
        default_max_output_tokens=min(deployment.max_output_tokens, model.context_tokens - 1),
        vocabulary_size=model.vocabulary_size,
        max_top_logprobs=model.max_top_logprobs,
        slots=model.slots,
        max_queued_requests=max_queued,
        max_message_bytes=max_message_bytes,
    )


def features(model: ModelInfo) -> list[str]:
    """The paths of the supported fields."""
    return sorted(model.features | SERVER_FEATURES)


def quantiles(values: Quantiles) -> latency_service_pb2.Quantiles:
    """Converts quantiles; they are absent if nothing was measured."""
    return latency_service_pb2.Quantiles(p50=duration(values.p50), p90=duration(values.p90), p99=duration(values.p99))


def latency(
    snapshot: Snapshot, totals: Tally, may_see: Callable[[str], bool]
) -> latency_service_pb2.GetLatencyResponse:
    """Builds GetLatency's reply from the window and the totals. It names only keys that the caller may see."""
    return latency_service_pb2.GetLatencyResponse(
        window=duration(snapshot.window),
        answers=snapshot.answers,
        queue=quantiles(snapshot.queue),
        time_to_first_token=quantiles(snapshot.time_to_first_token),
        time_to_last_token=quantiles(snapshot.time_to_last_token),
        time_per_output_token=quantiles(snapshot.time_per_output_token),
        threshold=duration(THRESHOLD),
        first_token_share=snapshot.first_token_share,
        last_token_share=snapshot.last_token_share,
        requests=_ended_requests(snapshot, totals, may_see),
    )


def _ended_requests(
    snapshot: Snapshot, totals: Tally, may_see: Callable[[str], bool]
) -> latency_service_pb2.EndedRequests:
    ended = snapshot.ended
    keys = {outcome.key for outcome in totals.outcomes} | {refusal.key for refusal in totals.refusals}
    visible = {key for key in keys if may_see(key)}
    return latency_service_pb2.EndedRequests(
        count=ended.outcomes.total(),
        total=totals.outcomes.total(),
        outcomes=[
            latency_service_pb2.Outcome(status=status, reason=reason, count=count, total=total)
            for (status, reason), count, total in _rows(ended.outcomes, totals.outcomes, _STATUS_AND_REASON)
        ],
        owed=snapshot.owed,
        first_token_share=snapshot.owed_share,
        time_to_first_token=quantiles(snapshot.owed_time_to_first_token),
        queue=quantiles(snapshot.waits),
        by_key=[
            latency_service_pb2.KeyRequests(key=key, count=count, total=total)
            for (key,), count, total in _rows(ended.outcomes, totals.outcomes, _KEY)
            if key in visible
        ],
        refusals=[
            latency_service_pb2.KeyRefusals(reason=reason, key=key, count=count, total=total)
            for (reason, key), count, total in _rows(ended.refusals, totals.refusals, _ALL)
            if key in visible
        ],
    )


def _rows(window: Counter[_Labels], totals: Counter[_Labels], part: slice) -> list[tuple[tuple[str, ...], int, int]]:
    """Counts in the window and since the start, grouped by a part of the labels; largest count in the window first."""
    recent, all_time = _sums(window, part), _sums(totals, part)
    ordered = sorted(all_time, key=lambda labels: (-recent[labels], -all_time[labels], labels))
    return [(labels, recent[labels], all_time[labels]) for labels in ordered]


def _sums(counts: Counter[_Labels], part: slice) -> Counter[tuple[str, ...]]:
    sums: Counter[tuple[str, ...]] = Counter()
    for labels, count in counts.items():
        sums[labels[part]] += count
    return sums


def abort_count(cause: AbortCause, count: int) -> latency_service_pb2.AbortCount:
    """The number of requests that ended early for one cause."""
    return latency_service_pb2.AbortCount(cause=latency_service_pb2.AbortCause.Value(cause.value), count=count)
