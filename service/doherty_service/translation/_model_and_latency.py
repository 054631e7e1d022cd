"""The replies of GetModel and GetLatency, part by part."""

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from doherty.v1 import latency_service_pb2, model_pb2, request_pb2
from doherty_engine import ModelInfo, Sampling
from doherty_service.telemetry import THRESHOLD, AbortCause, Quantiles, Snapshot, Tally
from doherty_service.translation._deployment import Deployment
from doherty_service.translation._fields import sampling
from doherty_service.translation._requests import SERVER_FEATURES
from doherty_service.translation._violations import Violations

_Labels = TypeVar("_Labels", bound=tuple[str, ...])
_HOW, _WHOSE, _WHOLE = slice(0, 2), slice(2, 3), slice(None)
"""Parts of an `Outcome`: status and reason, and the key; and all of a `Refusal`."""


def duration(seconds: float | None) -> Duration | None:
    """A span on the wire; absent stays absent."""
    if seconds is None:
        return None
    wire = Duration()
    wire.FromNanoseconds(round(seconds * 1e9))
    return wire


def default_sampling(model: ModelInfo, deployment: Deployment) -> request_pb2.Sampling:
    """What the sampling fields are when a request leaves them unset; without those that are off."""
    chosen = sampling(request_pb2.Sampling(), model.default_sampling, deployment, 0, Violations())
    off = Sampling()
    wire = request_pb2.Sampling(temperature=chosen.temperature)
    for field in request_pb2.Sampling.DESCRIPTOR.fields:
        value = getattr(chosen, field.name)
        if value != getattr(off, field.name):
            setattr(wire, field.name, value)
    return wire


def limits(model: ModelInfo, deployment: Deployment, *, max_queued: int, max_message_bytes: int) -> model_pb2.Limits:
    """What the deployment can hold."""
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
    """The paths of the fields that are honoured."""
    return sorted(model.features | SERVER_FEATURES)


def quantiles(three: Quantiles) -> latency_service_pb2.Quantiles:
    """Three quantiles, absent where nothing was measured."""
    return latency_service_pb2.Quantiles(p50=duration(three.p50), p90=duration(three.p90), p99=duration(three.p99))


def latency(
    snapshot: Snapshot, totals: Tally, may_see: Callable[[str], bool]
) -> latency_service_pb2.GetLatencyResponse:
    """The part of GetLatency that the window tells, beside the totals; of keys only those that the caller may see."""
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
    seen = {key for key in keys if may_see(key)}
    return latency_service_pb2.EndedRequests(
        count=ended.outcomes.total(),
        total=totals.outcomes.total(),
        outcomes=[
            latency_service_pb2.Outcome(status=status, reason=reason, count=count, total=total)
            for (status, reason), count, total in _rows(ended.outcomes, totals.outcomes, _HOW)
        ],
        owed=snapshot.owed,
        first_token_share=snapshot.owed_share,
        time_to_first_token=quantiles(snapshot.owed_time_to_first_token),
        queue=quantiles(snapshot.waits),
        by_key=[
            latency_service_pb2.KeyRequests(key=key, count=count, total=total)
            for (key,), count, total in _rows(ended.outcomes, totals.outcomes, _WHOSE)
            if key in seen
        ],
        refusals=[
            latency_service_pb2.KeyRefusals(reason=reason, key=key, count=count, total=total)
            for (reason, key), count, total in _rows(ended.refusals, totals.refusals, _WHOLE)
            if key in seen
        ],
    )


def _rows(window: Counter[_Labels], totals: Counter[_Labels], part: slice) -> list[tuple[tuple[str, ...], int, int]]:
    """Counts in the window and since the start, by a part of their labels; those with most in the window first."""
    now, all_time = _sums(window, part), _sums(totals, part)
    ordered = sorted(all_time, key=lambda labels: (-now[labels], -all_time[labels], labels))
    return [(labels, now[labels], all_time[labels]) for labels in ordered]


def _sums(counts: Counter[_Labels], part: slice) -> Counter[tuple[str, ...]]:
    sums: Counter[tuple[str, ...]] = Counter()
    for labels, count in counts.items():
        sums[labels[part]] += count
    return sums


def abort_count(cause: AbortCause, count: int) -> latency_service_pb2.AbortCount:
    """How many requests ended early for one cause."""
    return latency_service_pb2.AbortCount(cause=latency_service_pb2.AbortCause.Value(cause.value), count=count)
