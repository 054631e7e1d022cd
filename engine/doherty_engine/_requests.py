"""What an engine is asked for, already validated as far as that needs no model."""

from dataclasses import dataclass, field
from enum import StrEnum

_LEAST_TEMPERATURE = 1e-3


class Role(StrEnum):
    """Who speaks in a conversation; the values are those that chat templates know."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """An input that the model's chat template renders."""

    messages: tuple[Message, ...]
    field: str = "messages"
    """The field of GenerateRequest that it came from, for errors: "messages" or "prompt"."""
    control_tokens: bool = False
    """Whether control tokens that a content spells out, as `<|im_end|>`, are read as such; else they are text."""


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
    """How the next token is chosen, every default already filled in."""

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
        """Whether the most probable token is taken.

        Logits divided by less than this overflow, and sampling is greedy long before that.
        """
        return self.temperature < _LEAST_TEMPERATURE


@dataclass(frozen=True, slots=True)
class Stopping:
    """When the answer ends."""

    max_output_tokens: int | None = None
    """Of the whole answer; an explicit value that the context cannot hold is an error. None takes the default."""
    default_max_output_tokens: int = 1024
    """Of the whole answer; shrinks to what the context leaves."""
    min_output_tokens: int = 0
    stop_texts: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_text: bool = False
    ignore_eos: bool = False
    ends_at: float | None = None
    """The time by `time.monotonic()` at which the answer ends with what there is: FinishReason.TIME_LIMIT."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is a JSON value that fits a schema, which is JSON text."""

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
    """The part of the answer that the caller already holds: ids where they are known, else text, never both."""

    token_ids: tuple[int, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One answer to generate."""

    key: str
    """The server's own, unique name for this piece of work."""
    input: Input
    sampling: Sampling = field(default_factory=Sampling)
    stopping: Stopping = field(default_factory=Stopping)
    token_ids: bool = False
    """Whether StepOutput.token_ids is wanted."""
    top_logprobs: int | None = None
    """How many of the most probable tokens are wanted besides the generated one; None wants no log probabilities."""
    constraint: Constraint | None = None
    adapter: str = ""
    prefix: AnswerPrefix | None = None
    cache_salt: str = ""
    """Cached prefixes are shared only among requests with the same one."""
