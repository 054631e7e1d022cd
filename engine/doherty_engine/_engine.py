"""The Protocol that every engine keeps, and what an engine says of itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from doherty_engine._outputs import StepOutput
from doherty_engine._requests import AnswerPrefix, EngineRequest, Input

StepSink = Callable[[Sequence[StepOutput]], None]
"""Takes what one step produced for every request that took part in it."""


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """The sampling settings that a model's own configuration recommends; None where it says nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an engine serves and what it can do."""

    model: str
    """The id under which callers know the model."""
    revision: str
    """A commit on the hub, or "sha256:" and the digest of the file; empty if not known."""
    engine: str
    """The name under which the engine is registered."""
    engine_version: str
    context_tokens: int
    """Prompt and answer together."""
    vocabulary_size: int
    slots: int
    """How many requests it works on at the same time."""
    features: frozenset[str]
    """The paths of the fields of GenerateRequest that it honours, as "sampling.top_k"."""
    max_top_logprobs: int = 0
    profile: str = ""
    adapters: tuple[str, ...] = ()
    longest_token_bytes: int = 1024
    """How many bytes of text one token stands for at most: no text of more than that for each token of the context
    fits. The default is more than any known vocabulary has."""
    default_sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    tokenizer_folder: Path | None = None
    """Where the files of its tokenizer lie, in Hugging Face's format; None where there are none."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """What speculative decoding brought all requests of an engine since it started."""

    drafts: int = 0
    """How often a request got a draft: a step of eight requests has eight."""
    draft_tokens: int = 0
    accepted_by_position: tuple[int, ...] = ()
    """How often the first token of a draft was accepted, the first two, and so on; of the first position first."""

    @property
    def accepted_tokens(self) -> int:
        """How many drafted tokens were accepted."""
        return sum(self.accepted_by_position)


@dataclass(frozen=True, slots=True)
class Health:
    """How an engine is right now."""

    ok: bool
    detail: str = ""
    """For the log: why it is not ok."""
    kv_cache_use: float | None = None
    """The share of the KV cache in use, 0 to 1; None where the engine does not tell."""
    last_progress: float | None = None
    """When it last computed something, by `time.monotonic()`, also what gave no output, as a batch of a prompt; None
    where outputs are its only sign of life."""
    drafting: Drafting | None = None
    """None where nothing is drafted, or the engine does not tell."""


class RequestHandle(Protocol):
    """A request that an engine is working on."""

    @property
    def is_read(self) -> bool:
        """Whether the engine has read the request, and found nothing wrong with it."""
        ...

    def abort(self) -> None:
        """Makes the engine drop the request within one step or prompt batch; harmless when it is already over.

        No text comes after it: the next output of the request is its last one, FinishReason.ABORTED, unless the
        answer had just ended by itself.
        """
        ...


class Engine(Protocol):
    """Generates text. It knows nothing of gRPC, and it is used from one event loop.

    The engine calls `sink` on that loop, once a step, with what the step produced for every request. `submit` is only
    called for as many requests at a time as `info().slots`, so an engine needs no queue of its own.
    """

    async def start(self, sink: StepSink) -> None:
        """Loads the model and generates a few tokens to warm up.

        Raises:
            EngineSetupError: it cannot start; the message says what to do.
        """
        ...

    def submit(self, request: EngineRequest) -> RequestHandle:
        """Begins a request; never blocks, and does not call `sink`.

        All that goes wrong with the request comes as StepOutput.error.
        """
        ...

    async def count_tokens(self, content: Input | AnswerPrefix) -> int:
        """Counts the tokens of an input, or of a prefix, as the model would read it.

        Raises:
            InvalidInputError: it cannot be read, for instance by the chat template.
            UnsupportedError: the tokenizer changes the text of a prefix.
            EngineFailedError: the engine is not running.
        """
        ...

    def info(self) -> ModelInfo:
        """Tells what the engine serves; callable once `start` has returned."""
        ...

    def health(self) -> Health:
        """Tells how the engine is, without waiting for anything; any thread may ask."""
        ...

    async def stop(self) -> None:
        """Aborts what is running, gives every resource back, and returns when that is done. May be called twice."""
        ...
