"""The Protocol of engines, and the dataclasses that describe an engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from doherty_engine._outputs import StepOutput
from doherty_engine._requests import AnswerPrefix, EngineRequest, Input

StepSink = Callable[[Sequence[StepOutput]], None]
"""Takes the outputs of one step, for all requests that took part in it."""


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """The sampling settings that the model's configuration recommends; None if it contains none."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model that an engine serves, and its capabilities."""

    model: str
    """The id of the model in the API."""
    revision: str
    """A commit on the hub, or "sha256:" and the digest of the file; empty if unknown."""
    engine: str
    """The name under which the engine is registered."""
    engine_version: str
    context_tokens: int
    """Maximum number of tokens of prompt and answer together."""
    vocabulary_size: int
    slots: int
    """Maximum number of concurrent requests."""
    features: frozenset[str]
    """The paths of the fields of GenerateRequest that it supports, for example "sampling.top_k"."""
    max_top_logprobs: int = 0
    profile: str = ""
    adapters: tuple[str, ...] = ()
    longest_token_bytes: int = 1024
    """Maximum number of text bytes per token. A text of more than this times `context_tokens` cannot fit. The default
    is larger than in any known vocabulary."""
    default_sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    tokenizer_folder: Path | None = None
    """The folder with the files of its tokenizer in Hugging Face's format; None if there are none."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """Counts of speculative decoding over all requests since the engine started."""

    drafts: int = 0
    """The number of drafts: a step with eight requests makes eight."""
    draft_tokens: int = 0
    accepted_by_position: tuple[int, ...] = ()
    """How often the drafted token at each position was accepted, beginning with the first position."""

    @property
    def accepted_tokens(self) -> int:
        """The number of accepted draft tokens."""
        return sum(self.accepted_by_position)


@dataclass(frozen=True, slots=True)
class Health:
    """The current health of an engine."""

    ok: bool
    detail: str = ""
    """Why it is not ok, for the log."""
    kv_cache_use: float | None = None
    """The share of the KV cache in use, 0 to 1; None if the engine does not report it."""
    last_progress: float | None = None
    """When the engine last computed something (`time.monotonic()`), including work without output such as a batch of a
    prompt; None if outputs are its only sign of progress."""
    drafting: Drafting | None = None
    """None without speculative decoding, or if the engine does not report it."""


class RequestHandle(Protocol):
    """A request that an engine is working on."""

    @property
    def is_read(self) -> bool:
        """Whether the engine has read the request, and found nothing wrong with it."""
        ...

    def abort(self) -> None:
        """Makes the engine drop the request within one step or prompt batch. Does nothing if it has already ended.

        No text follows: the next output of the request is its last one, with FinishReason.ABORTED, unless the answer
        has just ended by itself.
        """
        ...


class Engine(Protocol):
    """Generates text. It is used from a single event loop.

    Once per step, the engine calls `sink` on that event loop with the outputs of the step for all requests. At most
    `info().slots` requests are submitted at a time, so an engine needs no queue of its own.
    """

    async def start(self, sink: StepSink) -> None:
        """Loads the model and generates a few tokens to warm up.

        Raises:
            EngineSetupError: It cannot start; the message says what to do.
        """
        ...

    def submit(self, request: EngineRequest) -> RequestHandle:
        """Begins a request. Does not block and does not call `sink`.

        All errors of the request are reported as StepOutput.error.
        """
        ...

    async def count_tokens(self, content: Input | AnswerPrefix) -> int:
        """Counts the tokens of an input, or of a prefix, as the model would read it.

        Raises:
            InvalidInputError: It cannot be tokenized; for example, the chat template refuses it.
            UnsupportedError: The tokenizer changes the text of a prefix.
            EngineFailedError: The engine is not running.
        """
        ...

    def info(self) -> ModelInfo:
        """Describes the model. May be called once `start` has returned."""
        ...

    def health(self) -> Health:
        """Returns the current health. Does not block; thread-safe."""
        ...

    async def stop(self) -> None:
        """Aborts all requests and frees all resources. May be called twice."""
        ...
