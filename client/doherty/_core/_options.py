"""The parameters of `generate`, and the less common ones that go into its `options`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from doherty._core._metadata import Metadata
from doherty._core._prompt import TokenIds
from doherty._core._settings import Timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """The less common fields of a request; None leaves the choice to the deployment.

    The server refuses fields that it does not support. `client.model().features` lists the supported ones.
    """

    model: str | None = None
    """The id of the model that the caller expects. If the server has another model, it raises NotFoundError."""
    top_k: int | None = None
    """The number of most probable tokens to sample from. 0 turns it off."""
    min_p: float | None = None
    """The lowest probability of a token to sample from, as a ratio to the most probable one. 0 turns it off."""
    frequency_penalty: float | None = None
    """Subtracted from a token's logit once for each of its occurrences in the text. From -2 to 2."""
    presence_penalty: float | None = None
    """Subtracted from a token's logit once if the token occurs in the text. From -2 to 2."""
    repetition_penalty: float | None = None
    """A factor that reduces the logits of tokens that occur in the text: it divides positive logits and multiplies
    negative ones. 1 turns it off."""
    min_output_tokens: int | None = None
    """Minimum number of tokens in the answer."""
    stop_token_ids: Sequence[int] = ()
    """Tokens that end the answer besides the model's own end of sequence."""
    include_stop_text: bool = False
    """Whether the stop text that ended the answer is delivered as its last part."""
    ignore_eos: bool = False
    """Whether to ignore the model's end of sequence and continue the answer, for load tests."""
    token_ids: bool = False
    """Whether the answer should contain the ids of the generated tokens."""
    top_logprobs: int | None = None
    """0 requests the log probabilities of the generated tokens; N also requests those of the N most probable tokens at
    each position."""
    regex: str | None = None
    """A regular expression that the whole answer must match."""
    grammar: str | None = None
    """A grammar in GBNF, whose rule `root` the answer must match."""
    choices: Sequence[str] | None = None
    """Texts, one of which must be the answer."""
    priority: Literal["interactive", "batch"] | None = None
    """Whether a person waits for the answer. "batch" requests wait for "interactive" ones, which are the default."""
    continue_from: str | TokenIds | None = None
    """The part of this answer that the caller already has. The server generates only the text after it."""


class Parameters(TypedDict, total=False):
    """For type checkers: the parameters of all overloads of `generate` (all except the prompt and the schema)."""

    system: str | None
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    adapter: str | None
    time_limit: float | None
    timeout: Timeout
    first_token_timeout: float | None
    idle_timeout: float | None
    max_retries: int | None
    request_id: str | None
    metadata: Metadata | None
    options: GenerateOptions | None


class MapParameters(Parameters, total=False):
    """For type checkers: the parameters of all overloads of `map` (all except the prompts and the schema)."""

    concurrency: int
    ordered: bool
