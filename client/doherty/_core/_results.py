"""What an answer is made of.

Every field has a default, so that a test makes a result of the fields that it is about.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, cast

from doherty._core._result import Result

if TYPE_CHECKING:
    # Type checkers know it, whether or not it is installed: with its default, a bare `Generation` is one of anything.
    from typing_extensions import TypeVar

    from doherty._core._details import Speculation, TokenLogprob

    ParsedT_co = TypeVar("ParsedT_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    ParsedT_co = TypeVar("ParsedT_co", covariant=True)


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    """The model ended it, or a stop text, a stop token or the end of a constraint did."""
    LENGTH = "length"
    """It reached max_output_tokens, or what the context holds."""
    TIME_LIMIT = "time_limit"
    """Its time_limit ran out."""
    OTHER = "other"
    """The server is newer than this package and told a reason that is not known here."""


@dataclass(frozen=True, slots=True)
class Delta(Result):
    """What is new in a stream since the delta before; its str is its text."""

    text: str = ""
    """Whole code points. May be empty."""
    token_ids: tuple[int, ...] | None = None
    """The ids of the tokens of the text; None where they were not asked for or the engine cannot tell them."""
    logprobs: "tuple[TokenLogprob, ...] | None" = None
    """One entry a token; None where they were not asked for or the engine cannot tell them."""
    token_count: int = 1
    """How many generated tokens this delta stands for."""

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Usage(Result):
    """How many tokens an answer took."""

    prompt_tokens: int = 0
    """The prompt as the model read it, template included."""
    output_tokens: int = 0
    """All generated tokens, also those whose text was cut off."""
    cached_tokens: int | None = None
    """How many of the tokens to read were still in the KV cache; None where the engine does not tell."""


@dataclass(frozen=True, slots=True)
class Timings(Result):
    """How long an answer took as the server saw it, in seconds; None where that is not known.

    All are counted from the moment at which the server had the whole request, but preprocess, queue and
    time_per_output_token, which are spans.
    """

    preprocess: float | None = None
    """Template and tokenizing."""
    queue: float | None = None
    """The wait for a slot of the engine."""
    time_to_first_token: float | None = None
    """TTFT: until the first token was on its way, or would have been in a stream."""
    time_to_last_token: float | None = None
    """TTLT: until the last token was on its way."""
    total: float | None = None
    """Until the answer was complete and on its way."""
    time_per_output_token: float | None = None
    """TPOT: the mean gap between tokens."""


RawMetadata = Iterable[tuple[str, str | bytes]] | None
"""Metadata as gRPC gives it; some of its calls have None for none."""


@dataclass(frozen=True, slots=True)
class ReplyMetadata(Result):
    """The metadata of a reply, as names in lower case and values: bytes where the name ends with "-bin", else str.

    Texts that came under the same name are joined with a comma. Of bytes, the last ones count.
    """

    initial: Mapping[str, str | bytes] = field(default_factory=dict[str, str | bytes])
    """What came before the answer."""
    trailing: Mapping[str, str | bytes] = field(default_factory=dict[str, str | bytes])
    """What came with the status. Empty for a request that shared an RPC with others (`multiplex`)."""


def reply_metadata(initial: RawMetadata, trailing: RawMetadata) -> ReplyMetadata:
    """The metadata of a reply from gRPC's."""
    return ReplyMetadata(_join(initial), _join(trailing))


def _join(raw: RawMetadata) -> dict[str, str | bytes]:
    joined: dict[str, str | bytes] = {}
    for name, value in raw or ():
        before = joined.get(name)
        joined[name] = f"{before}, {value}" if isinstance(before, str) and isinstance(value, str) else value
    return joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Result, Generic[ParsedT_co]):
    """A whole answer; its str is its text."""

    text: str = ""
    parsed: ParsedT_co = cast("Any", None)  # noqa: RUF009 - a type variable has no default value
    """The answer as `schema=` asked for it: an object of the model, or what the JSON stands for; None without one."""
    token_ids: tuple[int, ...] | None = None
    """The ids of the generated tokens; None where they were not asked for or the engine cannot tell all of them."""
    logprobs: "tuple[TokenLogprob, ...] | None" = None
    """One entry a token; None where they were not asked for or the engine cannot tell all of them."""
    finish_reason: FinishReason = FinishReason.STOP
    stop_text: str | None = None
    """The stop text that ended the answer."""
    stop_token_id: int | None = None
    """The end-of-sequence or stop token that ended the answer."""
    usage: Usage = Usage()
    timings: Timings = Timings()
    """How long it took as the server saw it; after a retry, how long its last attempt took."""
    network: float | None = None
    """The caller's total less the server's, in seconds; None if the server told no total, or after a retry.

    It is what the way there and back took, and what this process took. A stream that was read more slowly than the
    server sent it has that in here too.
    """
    request_id: str = ""
    model: str = ""
    seed: int | None = None
    """The seed that was used; None at temperature 0, and where a stream went on at another server with another seed."""
    speculation: "Speculation | None" = None
    """None where the engine does not speculate."""
    metadata: ReplyMetadata = field(default_factory=ReplyMetadata, repr=False, compare=False)
    """The metadata that came with the answer; of a stream, with its last part."""

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        """The text, which models write in Markdown; JSON as a block of code."""
        return self.text if self.parsed is None else f"```json\n{self.text}\n```"
