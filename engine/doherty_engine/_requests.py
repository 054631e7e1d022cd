"""The request for an engine. Everything is validated that can be validated without the model.

Nothing of a request may be changed. The classes of which every request has a new instance are not frozen, because
making an instance of a frozen dataclass takes four times as long.
"""

from dataclasses import dataclass, field
from enum import StrEnum

_MIN_TEMPERATURE = 1e-3


class Role(StrEnum):
    """The role of a message. The values are those of chat templates."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(slots=True)
class Conversation:
    """An input that the model's chat template renders."""

    messages: tuple[Message, ...]
    field: str = "messages"
    """The field of GenerateRequest that contained it ("messages" or "prompt"), for errors."""
    control_tokens: bool = False
    """Whether control tokens spelled out in a message, such as `<|im_end|>`, are read as control tokens or as text."""


@dataclass(frozen=True, slots=True)
class RawText:
    """An input that the model reads as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenIds:
    """An input that is already tokenized."""

    ids: tuple[int, ...]


Input = Conversation | RawText | TokenIds


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling settings, with all defaults filled in."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    """64 bits, unsigned. Without effect at temperature 0."""

    @property
    def is_greedy(self) -> bool:
        """Whether to choose the most probable token.

        Logits divided by a smaller temperature would overflow; the result is greedy at much larger ones already.
        """
        return self.temperature < _MIN_TEMPERATURE


@dataclass(frozen=True, slots=True)
class Stopping:
    """When the answer ends."""

    max_output_tokens: int | None = None
    """Maximum length of the whole answer. A value that does not fit into the context is an error; None: the default."""
    default_max_output_tokens: int = 1024
    """Default maximum length of the whole answer; reduced to the room in the context."""
    min_output_tokens: int = 0
    stop_texts: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_text: bool = False
    ignore_eos: bool = False
    ends_at: float | None = None
    """The `time.monotonic()` at which the answer is cut off, with FinishReason.TIME_LIMIT."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is a JSON value that matches a JSON Schema (as JSON text)."""

    schema: str


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches a regular expression."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """The answer matches the `root` rule of a grammar in GBNF."""

    gbnf: str


@dataclass(frozen=True, slots=True)
class Choices:
    """The answer is one of these."""

    choices: tuple[str, ...]


Constraint = JsonSchema | Regex | Grammar | Choices


@dataclass(frozen=True, slots=True)
class AnswerPrefix:
    """The part of the answer that the caller already has: either token ids or text, never both."""

    token_ids: tuple[int, ...] = ()
    text: str = ""


@dataclass(slots=True)
class EngineRequest:
    """One answer to generate."""

    key: str
    """The server's unique name for this request."""
    input: Input
    sampling: Sampling = field(default_factory=Sampling)
    stopping: Stopping = field(default_factory=Stopping)
    token_ids: bool = False
    """Whether to return StepOutput.token_ids."""
    top_logprobs: int | None = None
    """The number of most probable tokens to return besides the generated one; None: no log probabilities."""
    constraint: Constraint | None = None
    adapter: str = ""
    prefix: AnswerPrefix | None = None
    cache_salt: str = ""
    """Cached prefixes are shared only among requests with the same salt."""
