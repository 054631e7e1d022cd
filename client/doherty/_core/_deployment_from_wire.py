"""Converts the messages about a deployment to the dataclasses of the SDK."""

from typing import TYPE_CHECKING

from doherty._core._deployment import (
    EndedRequests,
    KeyRefusals,
    KeyRequests,
    Latency,
    Limits,
    ModelInfo,
    Outcome,
    Quantiles,
    SamplingDefaults,
)
from doherty._core._from_wire import optional, seconds
from doherty.v1 import latency_service_pb2

if TYPE_CHECKING:
    from doherty.v1 import model_pb2


def model_from_wire(model: "model_pb2.GetModelResponse") -> ModelInfo:
    """Converts the reply of GetModel."""
    limits, sampling = model.limits, model.default_sampling
    return ModelInfo(
        model=model.model,
        revision=model.revision or None,
        engine=model.engine,
        engine_version=model.engine_version,
        profile=model.profile or None,
        server_version=model.server_version,
        features=tuple(model.features),
        limits=Limits(**{field: getattr(limits, field) for field in Limits.__dataclass_fields__}),
        default_sampling=SamplingDefaults(
            **{field: optional(sampling, field) for field in SamplingDefaults.__dataclass_fields__}
        ),
        adapters=tuple(model.adapters),
    )


def latency_from_wire(latency: "latency_service_pb2.GetLatencyResponse") -> Latency:
    """Converts the reply of GetLatency."""
    return Latency(
        window=seconds(latency.window),
        answers=latency.answers,
        queue=_quantiles(latency.queue),
        time_to_first_token=_quantiles(latency.time_to_first_token),
        time_to_last_token=_quantiles(latency.time_to_last_token),
        time_per_output_token=_quantiles(latency.time_per_output_token),
        threshold=seconds(latency.threshold),
        first_token_share=optional(latency, "first_token_share"),
        last_token_share=optional(latency, "last_token_share"),
        running=latency.running,
        queued=latency.queued,
        slots=latency.slots,
        kv_cache_use=optional(latency, "kv_cache_use"),
        refusals=latency.refusals,
        aborts={_cause(abort.cause): abort.count for abort in latency.aborts},
        engine_restarts=latency.engine_restarts,
        uptime=seconds(latency.uptime),
        requests=_ended(latency.requests) if latency.HasField("requests") else None,
    )


def _ended(ended: latency_service_pb2.EndedRequests) -> EndedRequests:
    return EndedRequests(
        count=ended.count,
        total=ended.total,
        outcomes=tuple(Outcome(item.status, item.reason or None, item.count, item.total) for item in ended.outcomes),
        owed=ended.owed,
        first_token_share=optional(ended, "first_token_share"),
        time_to_first_token=_quantiles(ended.time_to_first_token),
        queue=_quantiles(ended.queue),
        by_key=tuple(KeyRequests(item.key or None, item.count, item.total) for item in ended.by_key),
        refusals=tuple(KeyRefusals(item.reason, item.key or None, item.count, item.total) for item in ended.refusals),
    )


def _quantiles(quantiles: latency_service_pb2.Quantiles) -> Quantiles:
    return Quantiles(optional(quantiles, "p50"), optional(quantiles, "p90"), optional(quantiles, "p99"))


def _cause(cause: latency_service_pb2.AbortCause.ValueType) -> str:
    known = latency_service_pb2.AbortCause.DESCRIPTOR.values_by_number.get(cause)
    return known.name.removeprefix("ABORT_CAUSE_").lower() if known else f"cause_{cause}"
