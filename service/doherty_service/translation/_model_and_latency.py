"""The replies of GetModel and GetLatency, part by part."""

from google.protobuf.duration_pb2 import Duration

from doherty.v1 import latency_service_pb2, model_pb2, request_pb2
from doherty_engine import ModelInfo, Sampling
from doherty_service.telemetry import THRESHOLD, AbortCause, Quantiles, Snapshot
from doherty_service.translation._deployment import Deployment
from doherty_service.translation._fields import sampling
from doherty_service.translation._requests import SERVER_FEATURES
from doherty_service.translation._violations import Violations


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


def latency(snapshot: Snapshot) -> latency_service_pb2.GetLatencyResponse:
    """The part of GetLatency that the window tells."""
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
    )


def abort_count(cause: AbortCause, count: int) -> latency_service_pb2.AbortCount:
    """How many requests ended early for one cause."""
    return latency_service_pb2.AbortCount(cause=latency_service_pb2.AbortCause.Value(cause.value), count=count)
