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

    The server refuses what it cannot honour: `client.model().features` lists what it can.
    """

    model: str | None = None
    """The id of the model that the caller expects; any other is NotFoundError."""
    top_k: int | None = None
    """Samples from this many of the most probable tokens. 0 is off."""
    min_p: float | None = None
    """Samples only from tokens at least this times as probable as the most probable one. 0 is off."""
    frequency_penalty: float | None = None
    """Is taken off a token's logit for every time that it already stands in the text. -2 to 2."""
    presence_penalty: float | None = None
    """Is taken off a token's logit once if it already stands in the text. -2 to 2."""
    repetition_penalty: float | None = None
    """Divides or multiplies the logit of a token that already stands in the text. 1 is off."""
    min_output_tokens: int | None = None
    """The fewest tokens that the answer must have."""
    stop_token_ids: Sequence[int] = ()
    """Tokens that end the answer besides the model's own end of sequence."""
    include_stop_text: bool = False
    """Whether the stop text that ended the answer is delivered as its last part."""
    ignore_eos: bool = False
    """Whether the answer goes on past the model's own end of sequence, for load tests."""
    token_ids: bool = False
    """Whether the ids of the generated tokens are wanted."""
    top_logprobs: int | None = None
    """0 wants the log probabilities of the generated tokens, N those of the N most probable ones at each place too."""
    regex: str | None = None
    """A regular expression that the whole answer matches."""
    grammar: str | None = None
    """A grammar in GBNF whose `root` rule the answer matches."""
    choices: Sequence[str] | None = None
    """The answer is one of these."""
    priority: Literal["interactive", "batch"] | None = None
    """Whether a person waits for the answer. What is "batch" goes behind what is not."""
    continue_from: str | TokenIds | None = None
    """The part of this very answer that the caller already holds: the answer goes on right behind it."""


class Parameters(TypedDict, total=False):
    """All parameters of `generate` but the prompt and the schema, for the type checkers: its overloads share them."""

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
