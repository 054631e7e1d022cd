"""What a deployment tells of itself.

Every field has a default, so that a test makes a result of the fields that it is about.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from doherty._core._result import Result


@dataclass(frozen=True, slots=True)
class Limits(Result):
    """What a deployment can hold."""

    context_tokens: int = 0
    """Prompt and answer together."""
    default_max_output_tokens: int = 0
    vocabulary_size: int = 0
    """Every token id is below it."""
    max_top_logprobs: int = 0
    slots: int = 0
    """How many answers are generated at the same time."""
    max_queued_requests: int = 0
    max_message_bytes: int = 0
    """The largest message that the server takes."""


@dataclass(frozen=True, slots=True)
class SamplingDefaults(Result):
    """What the sampling parameters are when a call leaves them out; None is off."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo(Result):
    """What a deployment serves and what it can do."""

    model: str = ""
    """The id that requests may name."""
    revision: str | None = None
    """A commit on the hub, or "sha256:" and the digest of the file; None if not known."""
    engine: str = ""
    engine_version: str = ""
    profile: str | None = None
    """What the engine was started with; None for an engine that has no profiles."""
    server_version: str = ""
    features: tuple[str, ...] = ()
    """The paths of the request's fields that the deployment honours, as "sampling.top_k"."""
    limits: Limits = Limits()
    default_sampling: SamplingDefaults = SamplingDefaults()
    adapters: tuple[str, ...] = ()
    """The names of the LoRA adapters."""


@dataclass(frozen=True, slots=True)
class Quantiles(Result):
    """Three quantiles in seconds; one is None where nothing was measured at its rank."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome(Result):
    """One way in which requests ended."""

    status: str = ""
    """The name of the status, as "OK" or "RESOURCE_EXHAUSTED"."""
    reason: str | None = None
    """What the caller was told, as "QUEUE_FULL"; None with OK, and where the caller left or its deadline passed."""
    count: int = 0
    """How many ended so in the window."""
    total: int = 0
    """How many ended so since the server started."""


@dataclass(frozen=True, slots=True)
class KeyRequests(Result):
    """How many requests of one API key ended."""

    key: str | None = None
    """The key's name; None where the server asks for no keys, and for callers without a valid one."""
    count: int = 0
    """In the window."""
    total: int = 0
    """Since the server started."""


@dataclass(frozen=True, slots=True)
class KeyRefusals(Result):
    """How many requests of one API key were refused for one reason before any work was done for them."""

    reason: str = ""
    """What the caller was told, as "QUEUE_FULL"."""
    key: str | None = None
    """The key's name; None where the server asks for no keys."""
    count: int = 0
    """In the window."""
    total: int = 0
    """Since the server started."""


@dataclass(frozen=True, slots=True)
class EndedRequests(Result):
    """All requests for an answer that ended in the window, whatever way they ended; durations in seconds."""

    count: int = 0
    total: int = 0
    """Since the server started."""
    outcomes: tuple[Outcome, ...] = ()
    """Those with most requests in the window first."""
    owed: int = 0
    """How many of those in the window the server should have given a first token: all but those that the caller got
    wrong and those beyond a limit of their key."""
    first_token_share: float | None = None
    """The share of the owed requests whose first token came within the threshold; one that never got one is outside."""
    time_to_first_token: Quantiles = Quantiles()
    """Of the owed requests; None where the request at that rank never got a first token."""
    queue: Quantiles = Quantiles()
    """The wait for a slot of all requests that waited, also of those that ended while they did."""
    by_key: tuple[KeyRequests, ...] = ()
    """Of the caller's own key; of all keys where that is an operator's."""
    refusals: tuple[KeyRefusals, ...] = ()
    """As `by_key`, and with the refusals of token counts."""


@dataclass(frozen=True, slots=True)
class Latency(Result):
    """How fast a server has been, durations in seconds."""

    window: float = 0.0
    """How far back this looks."""
    answers: int = 0
    """How many answers ended well in the window; the quantiles and the shares beside it are over these."""
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
    """How many requests the engine works on right now."""
    queued: int = 0
    """How many requests wait right now."""
    slots: int = 0
    """How many requests the engine can work on at the same time."""
    kv_cache_use: float | None = None
    """The share of the KV cache that is in use right now; None where the engine does not tell."""
    refusals: int = 0
    """How many requests were refused before any work was done for them since the server started."""
    aborts: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many requests ended early since the server started, by cause: "cancelled", "deadline", "engine", ...."""
    engine_restarts: int = 0
    """How often the engine was started anew since the server started, because it had died or stalled."""
    uptime: float = 0.0
    requests: EndedRequests | None = None
    """All requests that ended in the window, also those that were refused or cut off; None from an older server."""
