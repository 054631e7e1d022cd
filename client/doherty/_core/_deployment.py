"""The results that describe a deployment and its latency.

Every field has a default, so that a test can create a result with only the fields that it needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from doherty._core._result import Result


@dataclass(frozen=True, slots=True)
class Limits(Result):
    """The limits of a deployment."""

    context_tokens: int = 0
    """Maximum number of tokens of a prompt and its answer together."""
    default_max_output_tokens: int = 0
    vocabulary_size: int = 0
    """All token ids are lower than this."""
    max_top_logprobs: int = 0
    slots: int = 0
    """Maximum number of answers that are generated at the same time."""
    max_queued_requests: int = 0
    max_message_bytes: int = 0
    """Maximum size of a message that the server accepts."""


@dataclass(frozen=True, slots=True)
class SamplingDefaults(Result):
    """The values of sampling parameters that a call does not set. None means off."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo(Result):
    """Describes a deployment: its model, its engine, and the features that it supports."""

    model: str = ""
    """The id that requests may name."""
    revision: str | None = None
    """A commit on the Hugging Face Hub, or "sha256:" and the digest of the file. None if unknown."""
    engine: str = ""
    engine_version: str = ""
    profile: str | None = None
    """The profile that the engine was started with. None if the engine has no profiles."""
    server_version: str = ""
    features: tuple[str, ...] = ()
    """The paths of the supported fields of a request, for example "sampling.top_k"."""
    limits: Limits = Limits()
    default_sampling: SamplingDefaults = SamplingDefaults()
    adapters: tuple[str, ...] = ()
    """The names of the LoRA adapters."""


@dataclass(frozen=True, slots=True)
class Quantiles(Result):
    """Three quantiles in seconds. A quantile is None if nothing was measured at its rank."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome(Result):
    """The number of requests that ended with the same status and reason."""

    status: str = ""
    """The name of the status, for example "OK" or "RESOURCE_EXHAUSTED"."""
    reason: str | None = None
    """The reason that the caller received, for example "QUEUE_FULL". None if the status is OK, the caller left, or its
    deadline passed."""
    count: int = 0
    """The number in the window."""
    total: int = 0
    """The number since the server started."""


@dataclass(frozen=True, slots=True)
class KeyRequests(Result):
    """The number of requests of one API key that ended."""

    key: str | None = None
    """The key's name. None if the server does not require keys, and for callers without a valid key."""
    count: int = 0
    """In the window."""
    total: int = 0
    """Since the server started."""


@dataclass(frozen=True, slots=True)
class KeyRefusals(Result):
    """The number of requests of one API key that were refused for one reason, before any work was done for them."""

    reason: str = ""
    """The reason that the caller received, for example "QUEUE_FULL"."""
    key: str | None = None
    """The key's name. None if the server does not require keys."""
    count: int = 0
    """In the window."""
    total: int = 0
    """Since the server started."""


@dataclass(frozen=True, slots=True)
class EndedRequests(Result):
    """All requests for an answer that ended in the window, with any status. Durations are in seconds."""

    count: int = 0
    total: int = 0
    """Since the server started."""
    outcomes: tuple[Outcome, ...] = ()
    """Sorted by the number of requests in the window, the largest first."""
    owed: int = 0
    """The number of requests in the window that should have got a first token: all except invalid requests and those
    that exceeded a limit of their key."""
    first_token_share: float | None = None
    """The share of the owed requests whose first token came within the threshold. Requests that never got a first token
    count as too late."""
    time_to_first_token: Quantiles = Quantiles()
    """The quantiles over the owed requests. None if the request at that rank never got a first token."""
    queue: Quantiles = Quantiles()
    """The time that requests waited for a slot, including requests that ended while they waited."""
    by_key: tuple[KeyRequests, ...] = ()
    """The figures of the caller's own key, or of all keys if it is an operator's key."""
    refusals: tuple[KeyRefusals, ...] = ()
    """For the same keys as `by_key`. Includes the refusals of CountTokens."""


@dataclass(frozen=True, slots=True)
class Latency(Result):
    """The latency of a server. Durations are in seconds."""

    window: float = 0.0
    """The period that the figures cover, up to now."""
    answers: int = 0
    """The number of answers that ended with OK in the window. The quantiles and shares of this class cover these."""
    queue: Quantiles = Quantiles()
    time_to_first_token: Quantiles = Quantiles()
    time_to_last_token: Quantiles = Quantiles()
    time_per_output_token: Quantiles = Quantiles()
    threshold: float = 0.4
    """The Doherty threshold."""
    first_token_share: float | None = None
    """The share of the answers whose first token came within the threshold; None without answers."""
    last_token_share: float | None = None
    """The share of the answers whose last token came within the threshold; None without answers."""
    running: int = 0
    """The number of requests that the engine is processing now."""
    queued: int = 0
    """The number of requests that are waiting now."""
    slots: int = 0
    """Maximum number of requests that the engine processes at the same time."""
    kv_cache_use: float | None = None
    """The share of the KV cache that is in use now. None if the engine does not report it."""
    refusals: int = 0
    """The number of requests since the server started that were refused before the server did any work for them."""
    aborts: Mapping[str, int] = field(default_factory=dict[str, int])
    """The number of requests that ended early since the server started, by cause ("cancelled", "deadline", "engine" and
    others)."""
    engine_restarts: int = 0
    """The number of restarts of the engine, because it died or stalled, since the server started."""
    uptime: float = 0.0
    requests: EndedRequests | None = None
    """All requests that ended in the window, including those that were refused or cut off. None from older servers."""
