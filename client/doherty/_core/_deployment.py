"""What a deployment tells of itself."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a deployment can hold."""

    context_tokens: int
    """Prompt and answer together."""
    default_max_output_tokens: int
    vocabulary_size: int
    """Every token id is below it."""
    max_top_logprobs: int
    slots: int
    """How many answers are generated at the same time."""
    max_queued_requests: int
    max_message_bytes: int
    """The largest message that the server takes."""


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the sampling parameters are when a call leaves them out; None is off."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a deployment serves and what it can do."""

    model: str
    """The id that requests may name."""
    revision: str | None
    """A commit on the hub, or "sha256:" and the digest of the file; None if not known."""
    engine: str
    engine_version: str
    profile: str | None
    """What the engine was started with; None for an engine that has no profiles."""
    server_version: str
    features: tuple[str, ...]
    """The paths of the request's fields that the deployment honours, as "sampling.top_k"."""
    limits: Limits
    default_sampling: SamplingDefaults
    adapters: tuple[str, ...]
    """The names of the LoRA adapters."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Three quantiles in seconds; all three are None where nothing was measured."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """How fast a server has been, durations in seconds."""

    window: float
    """How far back this looks."""
    answers: int
    """How many answers ended well in the window; the quantiles and the shares are over these."""
    queue: Quantiles
    time_to_first_token: Quantiles
    time_to_last_token: Quantiles
    time_per_output_token: Quantiles
    threshold: float
    """The Doherty threshold."""
    first_token_share: float | None
    """The share of the answers whose first token came within the threshold; None without answers."""
    last_token_share: float | None
    """The share of the answers whose last token came within the threshold; None without answers."""
    running: int
    """How many requests the engine works on right now."""
    queued: int
    """How many requests wait right now."""
    slots: int
    """How many requests the engine can work on at the same time."""
    kv_cache_use: float | None
    """The share of the KV cache that is in use right now; None where the engine does not tell."""
    refusals: int
    """How many requests were refused before any work was done for them since the server started."""
    aborts: Mapping[str, int]
    """How many requests ended early since the server started, by cause: "cancelled", "deadline", "engine", ...."""
    engine_restarts: int
    """How often the engine was started anew since the server started, because it had died or stalled."""
    uptime: float
