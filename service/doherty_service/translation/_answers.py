"""From the engine's dataclasses to the wire."""

from google.protobuf.duration_pb2 import Duration

from doherty.v1 import answer_pb2, latency_service_pb2, model_pb2, request_pb2
from doherty_engine import EngineRequest, Finish, FinishReason, ModelInfo, Sampling, TokenLogprob
from doherty_service.latency import THRESHOLD, AbortCause, Call, Quantiles, Snapshot
from doherty_service.translation._deployment import Deployment
from doherty_service.translation._fields import sampling
from doherty_service.translation._requests import SERVER_FEATURES
from doherty_service.translation._violations import Violations

_FINISH_REASONS = {
    FinishReason.STOP: answer_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: answer_pb2.FINISH_REASON_LENGTH,
    FinishReason.TIME_LIMIT: answer_pb2.FINISH_REASON_TIME_LIMIT,
}


def duration(seconds: float | None) -> Duration | None:
    """A span on the wire; absent stays absent."""
    if seconds is None:
        return None
    wire = Duration()
    wire.FromNanoseconds(round(seconds * 1e9))
    return wire


def put_start(wire: answer_pb2.Start, call: Call, model: ModelInfo) -> None:
    """Fills in what stands at the beginning of an answer."""
    wire.request_id, wire.model, wire.prompt_tokens = call.request_id, model.model, call.prompt_tokens or 0


def token_logprobs(logprobs: tuple[TokenLogprob, ...] | None) -> list[answer_pb2.TokenLogprob]:
    """Log probabilities; none where they are not known."""
    return [
        answer_pb2.TokenLogprob(
            token_id=one.token_id,
            token=one.token,
            logprob=one.logprob,
            top=[
                answer_pb2.TopLogprob(token_id=other.token_id, token=other.token, logprob=other.logprob)
                for other in one.top
            ],
        )
        for one in logprobs or ()
    ]


def put_timings(wire: answer_pb2.Timings, call: Call) -> None:
    """Fills in how long a request has taken so far; without what is not known."""
    for name, seconds in call.spans():
        span: Duration = getattr(wire, name)
        span.seconds, span.nanos = divmod(round(seconds * 1e9), 1_000_000_000)


def put_summary(wire: answer_pb2.Summary, finish: Finish, request: EngineRequest, call: Call, model: ModelInfo) -> None:
    """Fills in how an answer ended, and what it took."""
    wire.finish_reason = _FINISH_REASONS[finish.reason]
    usage = wire.usage
    usage.prompt_tokens, usage.output_tokens = call.prompt_tokens or 0, finish.output_tokens
    if finish.cached_tokens is not None:
        usage.cached_tokens = finish.cached_tokens
    put_timings(wire.timings, call)
    if finish.stop_text is not None:
        wire.stop_text = finish.stop_text
    if finish.stop_token_id is not None:
        wire.stop_token_id = finish.stop_token_id
    if request.sampling.temperature > 0 and "sampling.seed" in model.features:
        wire.seed = request.sampling.seed
    if finish.speculation is not None:
        wire.speculation.steps = finish.speculation.steps
        wire.speculation.draft_tokens = finish.speculation.draft_tokens
        wire.speculation.accepted_tokens = finish.speculation.accepted_tokens


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
