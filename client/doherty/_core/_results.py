"""An answer and its parts.

Every field has a default, so that a test can create a result with only the fields that it needs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, cast

from doherty._core._result import Result

if TYPE_CHECKING:
    # For type checkers: with the default, `Generation` without a parameter is Generation[Any].
    from typing_extensions import TypeVar

    from doherty._core._details import Speculation, TokenLogprob

    ParsedT_co = TypeVar("ParsedT_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    ParsedT_co = TypeVar("ParsedT_co", covariant=True)


class FinishReason(StrEnum):
    """The reason why an answer ended."""

    STOP = "stop"
    """The model ended the answer, or it reached a stop text, a stop token or the end of a constraint."""
    LENGTH = "length"
    """The answer reached max_output_tokens or the end of the context."""
    TIME_LIMIT = "time_limit"
    """The time_limit of the request expired."""
    OTHER = "other"
    """A newer server sent a reason that this version of the package does not know."""


@dataclass(frozen=True, slots=True)
class Delta(Result):
    """The part of a stream that is new since the previous delta. `str()` returns its text."""

    text: str = ""
    """Contains only whole code points. May be empty."""
    token_ids: tuple[int, ...] | None = None
    """The ids of the text's tokens. None if they were not requested, or if the engine does not know them."""
    logprobs: "tuple[TokenLogprob, ...] | None" = None
    """One entry per token. None if they were not requested, or if the engine does not know them."""
    token_count: int = 1
    """The number of generated tokens that this delta represents."""

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Usage(Result):
    """The numbers of tokens of a request and its answer."""

    prompt_tokens: int = 0
    """The tokens of the prompt as the model reads it, including the template."""
    output_tokens: int = 0
    """All generated tokens, including those whose text was cut off."""
    cached_tokens: int | None = None
    """The number of input tokens that were still in the KV cache. None if the engine does not report it."""


@dataclass(frozen=True, slots=True)
class Timings(Result):
    """The times of an answer in seconds, measured by the server. None means unknown.

    `preprocess`, `queue` and `time_per_output_token` are durations. The others are measured from the moment at which
    the server had received the whole request.
    """

    preprocess: float | None = None
    """The time to apply the template and to tokenize."""
    queue: float | None = None
    """The time that the request waited for a slot of the engine."""
    time_to_first_token: float | None = None
    """TTFT: until the first token was on its way, or would have been in a stream."""
    time_to_last_token: float | None = None
    """TTLT: until the last token was on its way."""
    total: float | None = None
    """Until the answer was complete and on its way."""
    time_per_output_token: float | None = None
    """TPOT: the mean gap between tokens."""


RawMetadata = Iterable[tuple[str, str | bytes]] | None
"""Metadata as gRPC returns it. Some of its calls return None instead of empty metadata."""


@dataclass(frozen=True, slots=True)
class ReplyMetadata(Result):
    """The metadata of a reply. Names are in lower case. A value is bytes if its name ends with "-bin", else str.

    If a name occurs several times, texts are joined with commas, and of bytes only the last value is kept.
    """

    initial: Mapping[str, str | bytes] = field(default_factory=dict[str, str | bytes])
    """The initial metadata, which precedes the answer."""
    trailing: Mapping[str, str | bytes] = field(default_factory=dict[str, str | bytes])
    """The trailing metadata, which comes with the status. Empty if the request shared an RPC (`multiplex`)."""


def reply_metadata(initial: RawMetadata, trailing: RawMetadata) -> ReplyMetadata:
    """Converts gRPC's metadata of a reply."""
    return ReplyMetadata(_join(initial), _join(trailing))


def _join(raw: RawMetadata) -> dict[str, str | bytes]:
    pairs = tuple(raw or ())
    joined = dict(pairs)
    if len(joined) == len(pairs):
        return joined
    joined.clear()
    for name, value in pairs:
        before = joined.get(name)
        joined[name] = f"{before}, {value}" if isinstance(before, str) and isinstance(value, str) else value
    return joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Result, Generic[ParsedT_co]):
    """A whole answer. `str()` returns its text."""

    text: str = ""
    parsed: ParsedT_co = cast("Any", None)  # noqa: RUF009 - a type variable has no default value
    """With `schema=`, an instance of the model, or the value of the JSON text. Without it, None."""
    token_ids: tuple[int, ...] | None = None
    """The ids of the generated tokens. None if they were not requested, or if the engine does not know all of them."""
    logprobs: "tuple[TokenLogprob, ...] | None" = None
    """One entry per token. None if they were not requested, or if the engine does not know all of them."""
    finish_reason: FinishReason = FinishReason.STOP
    stop_text: str | None = None
    """The stop text that ended the answer."""
    stop_token_id: int | None = None
    """The end-of-sequence or stop token that ended the answer."""
    usage: Usage = Usage()
    timings: Timings = Timings()
    """The times that the server measured; after a retry, those of the last attempt."""
    network: float | None = None
    """The total measured by the client minus the server's, in seconds. None if the server sent none, or after a retry.

    It includes the time on the network and in this process. If a stream was read more slowly than the server sent it,
    it also includes that delay.
    """
    request_id: str = ""
    model: str = ""
    seed: int | None = None
    """The seed that was used. None at temperature 0, or if a stream continued on another server with another seed."""
    speculation: "Speculation | None" = None
    """The counts of speculative decoding. None if the engine does not use it."""
    metadata: ReplyMetadata = field(default_factory=ReplyMetadata, repr=False, compare=False)
    """The metadata that came with the answer, or with the last part of a stream."""

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        """Returns the text, because models write Markdown; with a schema, the JSON as a block of code."""
        return self.text if self.parsed is None else f"```json\n{self.text}\n```"
